"""A project that only serves functions, without a database."""

import environ

env = environ.Env()
SECRET_KEY = "no secret"
DEBUG = True
USE_TZ = True
INSTALLED_APPS = ["messaging", "examples.tutorial", "tests.support.calls"]
DATABASES = {"default": env.db_url_config("sqlite://:memory:")}
MESSAGING = {"URL": env.str("RABBITMQ_URL", default="amqp://127.0.0.1/")}
