"""
The image and both compose files, built and run: `make containers`.

Open `__main__.py` first: it does one after another what docs/containers.md tells. No
registry is needed: `stand_ins.py` makes the images that the files name.
"""
