"""Where settings come from: the environment, `.env`, the servers of `make run`."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from project.environment import Environment, text_of
from project.production import EXAMINED, KEYS, problems

BASE_DIR = Path(__file__).resolve().parent.parent.parent

env = Environment()
env.read_file(BASE_DIR / ".env")
# The private servers of `make run`, which are for development, unless the environment
# names another server: that one has an engine of its own.
file = BASE_DIR / ".local" / "servers.env"
if os.path.exists(file) and env.bool("DEBUG", default=True):
    # It needs psutil, which only machines for development have.
    from messaging.lab.variables import started

    running = started(file)
    servers = running.keys() - {"DEBUG", "OPEN_ACCESS", *KEYS}
    if all(text_of(name) in (None, running[name]) for name in servers):
        os.environ.update({k: v for k, v in running.items() if not text_of(k)})

DEBUG = env.bool("DEBUG", default=False)
#: Lets anyone read and write without a token; for development only.
OPEN_ACCESS = env.bool("OPEN_ACCESS", default=False)
if OPEN_ACCESS and not DEBUG:
    raise ImproperlyConfigured(
        "OPEN_ACCESS=1 lets anyone write; it needs DEBUG=1. "
        "Unset OPEN_ACCESS and issue tokens with `manage.py issue_token`."
    )
# The defaults below are for development; production must set its own.
given = {name: text_of(name) or "" for name in EXAMINED}
if not DEBUG and (found := list(problems(given))):
    raise ImproperlyConfigured("\n".join(found))
DEFAULT_KEY = "insecure-development-key-of-at-least-32-bytes"
SECRET_KEY = env.str("SECRET_KEY", default="") or DEFAULT_KEY
#: Former keys: what was signed with one of them is still valid.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
#: Recognises repeated requests; unlike SECRET_KEY, it must stay the same.
IDEMPOTENCY_KEY = env.str("IDEMPOTENCY_KEY", default="") or DEFAULT_KEY
