"""
Private servers for development and tests, and the crash lab.

Open `experiment.py` for a run of the lab, `servers.py` for the private servers. The
rest of the package does not depend on this folder.
"""

from importlib.util import find_spec

if find_spec("psutil") is None:
    raise ImportError(
        "messaging.lab needs psutil: pip install 'django-messaging-rabbitmq[lab]'"
    )
