"""
Dead letters: messages that were given up, kept as rows for operators.

Open `archive.py` first, which writes the rows; `letters.py` builds them. Operators use
`query.py` (select), `replay.py` (requeue, discard) and `formatting.py`; the admin is in
`messaging/admin`.
"""
