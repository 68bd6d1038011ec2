"""
Django database engine for nx-27017, the embedded server that replaces MongoDB.

It rewrites Django's queries so that the server answers like MongoDB, or raises.
"""
