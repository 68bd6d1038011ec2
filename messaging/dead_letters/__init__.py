"""
Messages that were given up.

    letters.py    what a dead letter says, and how it is read
    archive.py    from `<queue>.dead` into the table, once each
    selection.py  which of them an operator means
    settling.py   sending them again, or discarding them
"""
