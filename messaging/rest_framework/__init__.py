"""
Django REST framework on top of messages: a write publishes a command, answered 202.

Open `viewsets.py` first: `QueuedViewSet.enqueue` lists the steps of a write in Django;
`front.py` takes the same steps on an event loop. Then `serializers.py`, whose `save()`
publishes, and the request headers in `headers.py`.

Only projects that use Django REST framework import this package.
"""

from importlib.util import find_spec

if find_spec("rest_framework") is None:
    raise ImportError(
        "messaging.rest_framework needs Django REST framework: "
        "pip install 'django-messaging-rabbitmq[rest]'"
    )
