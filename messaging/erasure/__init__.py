"""
Erasing a person: blank what the tables of this package keep, and search for the rest.

Open traces.py first: it says by what a person is found. `docs/personal-data.md` shows
how a project erases its own tables, too.
"""
