"""Settings of connections, logins, tokens and limits of requests."""

from __future__ import annotations

from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured

from .base import DEBUG, env

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # refuses whoever is locked out
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in (
        ("UserAttributeSimilarityValidator", {}),
        ("MinimumLengthValidator", {"min_length": 12}),
        ("CommonPasswordValidator", {}),
        ("NumericPasswordValidator", {}),
    )
]

# Wrong passwords for one name from one address are counted in MySQL. A name alone is
# not locked, or anyone could lock out anyone.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = env.int("LOGIN_FAILURES", default=5)
AXES_COOLOFF_TIME = timedelta(minutes=env.int("LOGIN_PAUSE_MINUTES", default=15))
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "project.throttling.address_of"
AXES_USERNAME_CALLABLE = "project.logins.login_name"
AXES_LOCKOUT_CALLABLE = "project.logins.locked_out"
# Who logs in, and who fails to, is personal data: only what a lock needs is kept.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False

# Requests are counted here, of each client: with fewer entries than clients, those that
# come seldom would not be limited.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
}
#: Requests per client and process, e.g. "1000/min"; unset, there is no limit.
THROTTLE = env.str("THROTTLE", default="")
#: Attempts to log in per address and process, whatever the names.
LOGIN_THROTTLE = env.str("LOGIN_THROTTLE", default="60/min")

#: Who issues the tokens, and for whom; those of others are refused.
TOKEN_ISSUER = env.str("TOKEN_ISSUER", default="usuarios-y-reportes")
#: The longest time for which a token may be issued, and for which revocations are kept.
LONGEST_TOKEN = timedelta(days=90)
_MOST_MINUTES = LONGEST_TOKEN // timedelta(minutes=1)
#: Minutes for which a token is valid, and days in which an account may refresh it.
TOKEN_MINUTES = env.int("TOKEN_MINUTES", default=10)
if not 0 < TOKEN_MINUTES <= _MOST_MINUTES:
    text = f"TOKEN_MINUTES must be a number from 1 to {_MOST_MINUTES}."
    raise ImproperlyConfigured(text)
REFRESH_DAYS = env.int("REFRESH_DAYS", default=1)
if not 0 < REFRESH_DAYS <= LONGEST_TOKEN.days:
    text = f"REFRESH_DAYS must be a number from 1 to {LONGEST_TOKEN.days}."
    raise ImproperlyConfigured(text)
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=TOKEN_MINUTES),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=REFRESH_DAYS),
    "ISSUER": TOKEN_ISSUER,
    "AUDIENCE": TOKEN_ISSUER,
    # Seconds by which the clocks of two machines may differ.
    "LEEWAY": 5,
    # Of this project's classes, whose key is derived from SECRET_KEY.
    "AUTH_TOKEN_CLASSES": ("project.tokens.Access",),
    # The claims identify the client; no user of that name has to exist in MySQL.
    "USER_ID_CLAIM": "sub",
    "TOKEN_USER_CLASS": "project.tokens.Client",
}

#: Whether clients use TLS, to this server or to a proxy in front of it.
HTTPS = env.bool("HTTPS", default=not DEBUG)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
# Health checks come from inside, and take a redirect for an answer.
SECURE_REDIRECT_EXEMPT = [r"^health/"]
#: Seconds for which browsers come with TLS only: a year.
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=31_536_000) if HTTPS else 0
BEHIND_PROXY = env.bool("BEHIND_PROXY", default=False)
if BEHIND_PROXY:
    # Only a proxy that sets this header itself may be trusted with it.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
