"""A project like any other that uses `messaging`, on whatever DATABASE_URL names."""

import environ

env = environ.Env()
SECRET_KEY = "no secret, but long enough for signatures"
DEBUG = True
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "messaging", "tests.support.shop"]
DATABASES = {
    "default": env.db_url("DATABASE_URL", default="sqlite://:memory:"),
    "other": env.db_url_config("sqlite://:memory:"),
}
if "/" in str(DATABASES["default"]["NAME"]):
    # Tests use memory otherwise, which no two processes share.
    DATABASES["default"]["TEST"] = {"NAME": f"{DATABASES['default']['NAME']}.test"}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MESSAGING = {
    "URL": env.str("RABBITMQ_URL", default="amqp://127.0.0.1:1/"),
    "MAX_BODY": 1_000_000,
    "BACKOFF": (0.01, 0.05),
    "RETRY_PAUSE": (0.01, 0.05),
    "MAX_ATTEMPTS": 4,
    "PATIENCE": 0.3,
}
# The models here have no migrations, and refer to this app's.
MIGRATION_MODULES = {"contenttypes": None}
