"""Trained translators as files for other programs, and the use of such files.

`i2ikit export` writes them: `programs.py` traces a translator, `formats.py` makes the content of a file from
it, `agreement.py` compares that with the translator and names the component at fault, `about.py` describes
the file inside it, `export.py` does all of it. `onnx_model.py` uses an ONNX file.
"""
