"""Settings from the environment, then `.env`, then the servers of `make run`."""

import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from project.environment import Environment
from project.production import KEYS, problems

BASE_DIR = Path(__file__).resolve().parent.parent

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
    if all(os.environ.get(name, running[name]) == running[name] for name in servers):
        os.environ.update(running | {k: v for k, v in os.environ.items() if v})

from project.access_settings import *  # noqa: E402, F403 what is above it reads .env
from project.access_settings import LOGIN_THROTTLE, THROTTLE  # noqa: E402

DEBUG = env.bool("DEBUG", default=False)
#: Lets anyone read and write without a token; for development only.
OPEN_ACCESS = env.bool("OPEN_ACCESS", default=False)
if OPEN_ACCESS and not DEBUG:
    raise ImproperlyConfigured(
        "OPEN_ACCESS=1 lets anyone write; it needs DEBUG=1. "
        "Unset OPEN_ACCESS and issue tokens with `manage.py issue_token`."
    )
# The defaults below are for development; production must set its own.
if not DEBUG and (found := list(problems(os.environ))):
    raise ImproperlyConfigured("\n".join(found))
DEFAULT_KEY = "insecure-development-key-of-at-least-32-bytes"
SECRET_KEY = env.str("SECRET_KEY", default="") or DEFAULT_KEY
#: Former keys: what was signed with one of them is still valid.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
#: Recognises repeated requests; unlike SECRET_KEY, it must stay the same.
IDEMPOTENCY_KEY = env.str("IDEMPOTENCY_KEY", default="") or DEFAULT_KEY
# A page elsewhere could give its own host name this machine's address.
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "messaging",
    "users",
    "reports",
    "project",  # for its commands and static files
    "examples.tutorial",  # manage.py tutorial
]

MIDDLEWARE = [
    "messaging.logs.middleware.RequestMiddleware",
    "project.hosts.known_host",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "project.middleware.throttle",
    "project.middleware.SameOrigin",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "project.languages.admin_language",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "project.pages.OutagePages",
    "axes.middleware.AxesMiddleware",  # answers who is locked out
]
CSRF_FAILURE_VIEW = "project.missing.csrf_failure"

# Pages and mails about errors, without secrets.
DEFAULT_EXCEPTION_REPORTER = "project.error_reports.Report"
DEFAULT_EXCEPTION_REPORTER_FILTER = "project.error_reports.Filter"

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
WSGI_APPLICATION = "project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # First, so that they may extend those of apps under the same name.
        "DIRS": [BASE_DIR / "project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

MONGODB_URL = env.str("MONGODB_URL", default="mongodb://127.0.0.1:27017/reports")
DATABASES = {
    "default": env.db_url(
        "DATABASE_URL", default="mysql://root@127.0.0.1:3306/messaging"
    ),
    "reports": {
        "ENGINE": env.str("MONGODB_ENGINE", default="django_mongodb_backend"),
        "HOST": MONGODB_URL,
        "NAME": urlsplit(MONGODB_URL).path.strip("/") or "reports",
        "OPTIONS": {
            # Milliseconds; a hung server must not hold a consumer past its stop.
            "serverSelectionTimeoutMS": 3000,
            "connectTimeoutMS": 3000,
            "socketTimeoutMS": 15000,
        },
        "TEST": {"DEPENDENCIES": []},
    },
}
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        charset="utf8mb4",
        # Seconds; a hung server must not hold a consumer past its stop deadline.
        connect_timeout=5,
        read_timeout=15,
        write_timeout=15,
        # By default the server keeps the transaction of a client that vanishes, with
        # all its locks, for eight hours. A client that waits for a lock must give up
        # before its read times out, or its statement would continue without it.
        init_command="SET SESSION wait_timeout = 30, innodb_lock_wait_timeout = 10",
    )
DATABASES["default"]["CONN_MAX_AGE"] = 60
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASE_ROUTERS = ["reports.router.ReportsRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

#: "json" for programs that collect log lines, "console" for people.
LOG_FORMAT = env.str("LOG_FORMAT", default="console" if DEBUG else "json")
if LOG_FORMAT not in ("json", "console"):
    raise ImproperlyConfigured('LOG_FORMAT must be "json" or "console".')
#: Of the lines of this project; of libraries there are warnings and worse.
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
# Python would write warnings to the same stream in a form of its own.
logging.captureWarnings(True)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "context": {"()": "messaging.logs.context.AddContext"},
        "one_line_each": {"()": "messaging.logs.django_lines.OneLineEach"},
    },
    "formatters": {
        "console": {"()": "messaging.logs.console.ConsoleFormatter"},
        "json": {"()": "messaging.logs.json_lines.JSONFormatter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "filters": ["context", "one_line_each"],
            "formatter": LOG_FORMAT,
        },
        "rejected": {"class": "messaging.amqp.tally.CountRejected"},
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": [], "level": "INFO"},  # Django's default has its own
        "django.security": {"handlers": ["rejected"]},
        "messaging": {"level": LOG_LEVEL},
        "project": {"level": LOG_LEVEL},
        "axes": {"level": "ERROR"},  # its warnings name who failed to log in
        "reports": {"level": LOG_LEVEL},
        "users": {"level": LOG_LEVEL},
    },
}

# Errors shown to people are in the language of the contract.
LANGUAGE_CODE = "es"
LANGUAGES = [("es", "español"), ("en", "English")]
# Before the catalogues of apps, Django's included.
LOCALE_PATHS = [BASE_DIR / "project" / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "project.formats"

CSRF_FAILURE_VIEW = "project.missing.csrf_failure"
LOGIN_URL = "rest_framework:login"
LOGIN_REDIRECT_URL = "/"

#: Whether clients use TLS, to this server or to a proxy in front of it.
HTTPS = env.bool("HTTPS", default=not DEBUG)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
# Health checks come from inside, and take a redirect for an answer.
SECURE_REDIRECT_EXEMPT = [r"^health/"]
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=3600) if HTTPS else 0
BEHIND_PROXY = env.bool("BEHIND_PROXY", default=False)
if BEHIND_PROXY:
    # Only a proxy that sets this header itself may be trusted with it.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SILENCED_SYSTEM_CHECKS = [
    # These concern other hosts of the domain, which this project does not know.
    "security.W005",  # HSTS for subdomains
    "security.W021",  # HSTS preloading
]

STATIC_URL = "static/"
#: Where `collectstatic` puts its files.
STATIC_ROOT = env.str("STATIC_ROOT", default=str(BASE_DIR / ".local" / "static"))
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = DEBUG

#: Files of reports; API and consumers must share it.
MEDIA_ROOT = env.str("MEDIA_ROOT", default=str(BASE_DIR / ".local" / "media"))
STATIC_FILES = "django.contrib.staticfiles.storage.StaticFilesStorage"
STORAGES = {
    "default": {"BACKEND": "project.private_files.Storage"},
    "staticfiles": {"BACKEND": STATIC_FILES},
}
#: Days for which `reports prune` keeps the files of reports, 0 as long as the report;
#: and e-mails that are files.
REPORT_FILE_DAYS = env.int("REPORT_FILE_DAYS", default=0)
MAIL_FILE_DAYS = env.int("MAIL_FILE_DAYS", default=7)
#: TrueType fonts of these files; a letter the first lacks is taken from the next.
REPORT_FONTS = env.list(
    "REPORT_FONTS", default=["/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"]
)
#: Seconds and megabytes of memory that the layout of one file may take.
REPORT_FILE_SECONDS = env.float("REPORT_FILE_SECONDS", default=10.0)
REPORT_FILE_MEGABYTES = env.int("REPORT_FILE_MEGABYTES", default=512)
# For development, files with the messages that would have been sent.
vars().update(
    env.email_url(
        "EMAIL_URL",
        default=f"filemail:///{BASE_DIR / '.local' / 'mail'}"
        if DEBUG
        else "smtp://localhost:25",
    )
)
#: Seconds for each answer of the mail server.
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", default=5)
#: E-mails about reports to one recipient, and of one author, on one day in UTC.
NOTIFICATIONS_PER_DAY = env.int("NOTIFICATIONS_PER_DAY", default=20)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="reportes@localhost")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
#: Addresses to which `doctor --mail` writes.
ADMINS = [("", address) for address in env.list("ADMINS", default=[])]

#: Settings of messaging/conf.py as JSON, which override the following.
OF_MESSAGING = env.json("MESSAGING", default={})
MESSAGING = {
    "ASYNCAPI_INFO": {"title": "Usuarios y reportes"},
    "URL": env.str("RABBITMQ_URL", default="amqp://guest:guest@127.0.0.1:5672/"),
    "CONFIRM_TIMEOUT": env.float("CONFIRM_TIMEOUT", default=5.0),
    "IDEMPOTENCY_KEY": IDEMPOTENCY_KEY,
    **OF_MESSAGING,
    "QUEUES": {
        "notifications_queue": {
            # E-mails should leave soon after a mail server is back.
            "RETRY_PAUSE": (0.5, 30.0),
            # Seconds; a server that answers byte by byte holds up the others so long.
            "TIME_LIMIT": 60.0,
            "ATTEMPTS_OF": {
                "messaging.exceptions.Retry": None,
                "messaging.exceptions.TimeLimitExceeded": 3,
                # Three hours or so: some servers take minutes to trust a sender.
                "smtplib.SMTPException": 500,
            },
        },
        **OF_MESSAGING.get("QUEUES", {}),
    },
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": []
    if OPEN_ACCESS
    else [
        # First, so that a request with a token touches no database.
        "project.tokens.BearerToken",
        "project.access.BrowserSession",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.AllowAny"
        if OPEN_ACCESS
        else "project.access.HasRole"
    ],
    "DEFAULT_PARSER_CLASSES": [
        "messaging.rest_framework.parsers.StrictJSONParser",
        "rest_framework.parsers.FormParser",
        "messaging.rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "messaging.rest_framework.renderers.FormsRenderer",
    ],
    "DEFAULT_FILTER_BACKENDS": [
        "django_filters.rest_framework.DjangoFilterBackend",
        "messaging.rest_framework.filters.SearchFilter",
        "messaging.rest_framework.filters.OrderingFilter",
    ],
    "DEFAULT_PAGINATION_CLASS": "project.pagination.KeysetPagination",
    "DEFAULT_SCHEMA_CLASS": "project.openapi.RoleSchema",
    "VIEW_NAME_FUNCTION": "messaging.rest_framework.renderers.view_name",
    "EXCEPTION_HANDLER": "messaging.rest_framework.exceptions.exception_handler",
    "DEFAULT_THROTTLE_CLASSES": ["project.throttling.Throttle"] if THROTTLE else [],
    "DEFAULT_THROTTLE_RATES": {
        "client": THROTTLE or None,
        "login": LOGIN_THROTTLE or None,
    },
    # Proxies that report the client's address; without, clients could forge it.
    "NUM_PROXIES": int(BEHIND_PROXY),
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Usuarios y reportes",
    "DESCRIPTION": (
        "Las lecturas van a la base de datos. Las escrituras se encolan en RabbitMQ y "
        "se responden con 202; con `Prefer: wait=N`, con su resultado.\n\n"
        "Todo error es un objeto con `code`, para programas, y `detail`, para "
        "personas; un 400 tiene además `errors`, con los textos de cada campo, "
        "parámetro o cabecera. Un parámetro de consulta desconocido o repetido es un "
        "400. Un método que una dirección no tiene es un 405 con `Allow`, y una "
        "dirección desconocida un 404. Cada lectura responde también a HEAD, y cada "
        "dirección a OPTIONS."
    ),
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.1",
    # One definition of each body, whatever the method.
    "COMPONENT_SPLIT_PATCH": False,
    "POSTPROCESSING_HOOKS": [
        "messaging.rest_framework.openapi.add_operations",
        "project.openapi.complete",
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

#: By how much a penalty lowers an author's rating, which never falls below 0.
AUTHOR_PENALTY = env.float("AUTHOR_PENALTY", default=0.5)
#: Penalties of one author on one day, in UTC; what exceeds them changes no rating.
AUTHOR_PENALTIES_PER_DAY = env.int("AUTHOR_PENALTIES_PER_DAY", default=4)
#: What happens to the reports of a deleted user: "keep" or "anonymise".
DELETED_AUTHORS = env.str("DELETED_AUTHORS", default="keep")
if DELETED_AUTHORS not in ("keep", "anonymise"):
    raise ImproperlyConfigured('DELETED_AUTHORS must be "keep" or "anonymise".')
