"""A page in the browser to play with trained translators.

live.py      a model that is opened again when training has saved new weights
studio.py    what the page can ask of several models at once; knows nothing of the page
layout.py    what is on the page
page.py      what happens when something on it is touched
serving.py   the server on this machine
"""
