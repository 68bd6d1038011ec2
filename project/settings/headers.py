"""Settings of what browsers may do with pages, and of sessions."""

from csp.constants import NONE, SELF

from .base import env

# Pages have no scripts and styles but those of static files.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        # Styles of Bootstrap and of the API's documentation have pictures in them.
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"

#: Hours after which a browser has to log in again.
SESSION_COOKIE_AGE = round(env.float("SESSION_HOURS", default=12.0) * 3600)
