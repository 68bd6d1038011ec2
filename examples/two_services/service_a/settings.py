"""Service A publishes and calls; it needs no database."""

import environ

env = environ.Env()
DEBUG = True
SECRET_KEY = "for a demonstration on one machine only"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "examples.two_services.service_a.urls"
INSTALLED_APPS = ["messaging"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
MESSAGING = {"URL": env.str("RABBITMQ_URL"), "APP_ID": "service-a"}
