"""
The outbox: messages are stored in the transaction of a change and published after it.

Open relay.py first, which publishes the rows. model_events.py has `@publishes`, which
stores an event for every change of a model; orm_hooks.py is how it sees every change.
"""
