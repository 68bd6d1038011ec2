"""
What answers over HTTP have in common, with Django REST framework and without.

Open `errors.py` first: it has the shape of every error.
"""
