"""
What operators see: the doctor, `/metrics`, `manage.py top` and the admin read it here.

`state.py`, to open first, has the backlog of each queue and why it waits; `minutes.py`
counts what happens; `story.py` finds all that is known of one message; `metrics.py`
puts the numbers in the format of Prometheus; `servers.py` reads servers that may hang.
"""
