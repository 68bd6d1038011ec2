"""
Dead letters: messages that were given up, kept as rows for operators.

Open `archive.py` first, which writes the rows; `letters.py` builds them, and
`causes.py` says which are similar. Operators use `query.py` (select), `groups.py`
(count), `preview.py`, `replay.py` (requeue, discard, restore) and `formatting.py`;
`jobs.py` sends groups again, in the thread of `replayer.py`. The admin is in
`messaging/admin`.
"""
