"""
Messages that were given up: kept as rows until an operator settles them.

Open `archive.py` first, which writes the rows; `letters.py` builds them. What operators
do with them is in `query.py` (which ones), `replay.py` (send again, discard),
`formatting.py`; the admin is in `messaging/admin`.
"""
