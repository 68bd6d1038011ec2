"""
Masking what must not be shown to everybody: addresses of people, secrets, control
characters. Log lines, findings and the pages of operators are masked.

It is done to the finished text, because addresses come from everywhere: from error
texts of servers, from values in tracebacks, and from URLs of requests.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import cache
from urllib.parse import unquote, urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from messaging.conf import settings

#: Characters of a text that are kept.
LONGEST = 50_000
#: What is shown in place of an address, and of anything else.
ADDRESS, HIDDEN = "[address]", "[hidden]"
#: Characters of a password from which on it is looked for: shorter ones are words.
SHORTEST_SECRET = 8

#: `@`, also as URLs and JSON write it.
AT = re.compile(r"@|%(?:25)*40|\\u0040", re.IGNORECASE)
#: A part of a text that is an address if it has an `AT` behind its first character.
WORD = re.compile(r"\"[^\"\n]{1,64}\"@[^\s\"'<>]+|[^\s\"'`<>(){}\[\],;:=?&/|]+")
#: User and password in a URL.
CREDENTIALS = re.compile(r"(?<=://)[^\s/?#'\"]*@")
#: Signed tokens.
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
#: Values that servers and pydantic quote in their errors.
QUOTED = re.compile(
    r"(?P<mysql>Duplicate entry ').{0,1000}?(?=' for key )"
    r"|(?P<postgresql>Key \([^)\n]{0,200}\)=\().{0,1000}?(?=\) )"
    r"|(?P<row>Failing row contains \()[^\n]*"
    r"|(?P<mongodb>dup key: \{).{0,1000}?(?=\})"
    r"|(?P<bulk>'op': )[^\n]*"
    r"|(?P<pydantic>\binput_value=).{0,1000}?(?=, input_type=)",
    re.DOTALL,
)


def masked(text: str, *, lines: bool = False) -> str:
    """
    Return a text without addresses, secrets and control characters.

    With `lines` it keeps the ends of its lines. Of a text that is too long the middle
    is left out.
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    for secret in secrets():
        text = text.replace(secret, HIDDEN)
    if "eyJ" in text:
        text = TOKEN.sub(HIDDEN, text)
    if "'" in text or "(" in text or "{" in text or "input_value" in text:
        text = QUOTED.sub(lambda found: f"{found[found.lastgroup or 0]}{HIDDEN}", text)
    if AT.search(text):
        text = WORD.sub(_without_address, CREDENTIALS.sub("", text))
    return text if text.isprintable() else printable(text, "\n" if lines else "")


def _without_address(word: re.Match[str]) -> str:
    at = AT.search(word[0], 1)
    return word[0] if at is None else ADDRESS


def printable(text: str, allowed: str = "") -> str:
    r"""Return a text with unprintable characters escaped, as in \u0000."""
    return "".join(
        one if one.isprintable() or one in allowed else json.dumps(one)[1:-1]
        for one in text
    )


@cache
def secrets() -> tuple[str, ...]:
    """Return the keys of the settings, and the passwords of all servers."""
    urls: list[str] = []
    with suppress(ImproperlyConfigured):  # `manage.py check` says it
        urls += [*settings.urls, str(settings.BROKER_MANAGEMENT or "")]
    found = [django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS]
    found += [django_settings.EMAIL_HOST_PASSWORD, settings.IDEMPOTENCY_KEY]
    for database in django_settings.DATABASES.values():
        found.append(database.get("PASSWORD"))
        urls.append(str(database.get("HOST") or ""))
    for url in urls:
        with suppress(ValueError):
            password = urlsplit(url).password or ""
            found += [password, unquote(password)]
    texts = {str(one) for one in found if one}
    return tuple(text for text in texts if len(text) >= SHORTEST_SECRET)


setting_changed.connect(
    lambda **_: secrets.cache_clear(), weak=False, dispatch_uid="messaging.logs"
)
