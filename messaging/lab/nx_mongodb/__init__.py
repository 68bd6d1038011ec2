"""
Django database engine for nx-27017, the embedded server that stands in for MongoDB.

It makes the server give MongoDB's answers to what Django sends, or refuses.
"""
