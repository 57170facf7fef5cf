"""A page in the browser to play with trained translators.

live.py      a model that is opened again when training has saved new weights
studio.py    what the page can ask of several models at once; knows nothing of the page
page.py      the page: what is on it, and what happens when something is touched
serving.py   the server on this machine
"""
