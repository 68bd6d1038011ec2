"""A project that only serves functions: it needs no database."""

import environ

env = environ.Env()
SECRET_KEY = "no secret"
DEBUG = True
USE_TZ = True
INSTALLED_APPS = ["messaging", "tests.support.calls"]
DATABASES = {"default": env.db_url_config("sqlite://:memory:")}
MESSAGING = {"URL": env.str("RABBITMQ_URL", default="amqp://127.0.0.1/")}
