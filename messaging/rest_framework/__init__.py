"""Django REST framework on top of messages; only projects that use it import this."""

from importlib.util import find_spec

if find_spec("rest_framework") is None:
    raise ImportError(
        "messaging.rest_framework needs Django REST framework: "
        "pip install 'django-messaging-rabbitmq[rest]'"
    )
