"""Django REST framework on top of messages; only projects that use it import this."""
