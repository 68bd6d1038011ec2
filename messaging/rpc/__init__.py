"""
Remote procedure calls: `call()` sends one and waits for the reply, `@serves` answers.

Open client.py first, then server.py; functions.py has `@serves` and what one call does,
protocol.py says what calls and replies look like on the wire, and arguments.py how the
arguments of a served function are checked.
"""
