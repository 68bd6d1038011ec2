"""
The app of `manage.py tutorial`: each messaging pattern as a script of a few lines.

Open scripts/hello.py first; docs/patterns.md explains each script. This app belongs to
the project, not to the wheel of `messaging`.
"""
