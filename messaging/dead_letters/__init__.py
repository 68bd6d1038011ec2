"""
Messages that were given up.

    burial.py     into `<queue>.dead`, before the original is acknowledged
    letters.py    what a dead letter says, and how it is read
    archive.py    from `<queue>.dead` into the table, once each
    models.py     the table
    selection.py  which of them an operator means
    settling.py   sending them again, or discarding them
    pretty.py     how the terminal and the admin show them
"""
