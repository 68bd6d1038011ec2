"""Which failures are similar: those of one queue, type, kind, code and pattern."""

from __future__ import annotations

import hashlib
import re

#: Parts of a reason that may be values; what separates them stays as it is.
TOKEN = re.compile(r"[^\s'\"<>()\[\]{},;:=]+")
DIGITS = re.compile(r"\d+")
#: UUIDs, digests and other hexadecimal ids, with at least one digit.
HEXADECIMAL = re.compile(r"(?:0x)?(?=[a-f-]*\d)[0-9a-f-]{8,}", re.IGNORECASE)


def pattern_of(reason: str) -> str:
    """Return a reason with placeholders for e-mails, ids and numbers."""
    return TOKEN.sub(lambda found: _placeholder(found[0]), reason)


def _placeholder(token: str) -> str:
    if "@" in token:
        return "<e-mail>"
    if HEXADECIMAL.fullmatch(token) and not token.isdigit():
        return "<id>"
    return DIGITS.sub("#", token)


def cause_of(
    queue: str, event_type: str, kind: str, code: str, reason: str, is_answered: bool
) -> str:
    """
    Return a digest, as 32 hexadecimal digits, that is the same for similar failures.

    Those that were answered form groups of their own.
    """
    parts = (queue, event_type, kind, code, pattern_of(reason), str(is_answered))
    content = "\0".join(parts).encode(errors="backslashreplace")
    return hashlib.blake2b(content, digest_size=16).hexdigest()
