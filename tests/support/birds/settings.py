"""A project that does nothing but listen to strangers."""

import environ

env = environ.Env()
SECRET_KEY = "no secret"
DEBUG = True
USE_TZ = True
INSTALLED_APPS = ["messaging", "tests.support.birds"]
DATABASES = {"default": env.db_url("DATABASE_URL")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MESSAGING = {
    "URL": env.str("RABBITMQ_URL"),
    "MAX_ATTEMPTS": 3,
    "RETRY_PAUSE": (0.05, 0.1),
    "QUEUES": {"papers": {"PARTITIONS": 2}},
}
