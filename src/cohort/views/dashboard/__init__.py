"""The viewer: what the groups of a run say, in a browser on this machine, in one file, or in a notebook.

`runs` and `index` read run directories and nothing else. A file a screen says what it shows, as frozen dataclasses that
pure functions make; `app` serves them, `export` writes them into one file.
"""
