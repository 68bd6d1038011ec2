"""
The AsyncAPI document: what other programs may send, call and receive.

It is made of the definitions with which messages are decoded. Open document.py first;
messages.py and rpc.py say what travels, schemas.py what bodies look like,
compatibility.py what would break other programs, and reference.py is for people.
"""
