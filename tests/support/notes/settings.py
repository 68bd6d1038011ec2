"""The smallest project that uses `messaging`: no API, no second store."""

import environ

env = environ.Env()
SECRET_KEY = "no secret"
DEBUG = True
USE_TZ = True
INSTALLED_APPS = ["messaging", "tests.support.notes"]
DATABASES = {"default": env.db_url("DATABASE_URL", default="sqlite://:memory:")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MESSAGING = {"URL": env.str("RABBITMQ_URL", default="amqp://127.0.0.1/")}
