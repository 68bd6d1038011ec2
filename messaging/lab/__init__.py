"""Private servers, and the crash lab; neither is needed to use the package."""

from importlib.util import find_spec

if find_spec("psutil") is None:
    raise ImportError(
        "messaging.lab needs psutil: pip install 'django-messaging-rabbitmq[lab]'"
    )
