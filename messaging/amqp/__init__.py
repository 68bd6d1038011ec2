"""
Everything that talks to the broker: publishing, consuming, declaring.

Start with `publisher.py` for what is sent and `subscription.py` for what is received;
`connection.py` has the connection and its I/O thread, and `client.py` a blocking client
for commands. pika's objects are touched in the I/O thread of their connection only:
other threads use `Connection.submit`.
"""
