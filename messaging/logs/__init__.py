"""
Log lines with ids and without personal data, for this package and projects that use it.

Open context.py first: it knows what a thread is working on. `docs/app.md` shows how to
configure the filters and formatters.
"""
