"""Text that every database, AMQP header and JSON document can hold."""

from __future__ import annotations

from django.utils.translation import gettext


def storable(value: object, length: int | None = None) -> str:
    r"""
    Return a value as text without NUL and lone surrogates, cut to `length` characters.

    Bytes are decoded as UTF-8. What cannot be stored is written as an escape such as
    `\xff`. Never raises, whatever the `__str__` of a value does.
    """
    if type(value) is str and value.isprintable():
        return value[:length]  # nearly all
    if isinstance(value, bytes | bytearray):
        text = value.decode(errors="backslashreplace")
    else:
        try:
            text = str(value)
        except Exception:  # noqa: BLE001 a `__str__` may raise anything
            text = f"<{type(value).__name__} that cannot be shown>"
    text = text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return text[:length]


def describe(error: BaseException, length: int | None = None) -> str:
    """
    Return the class name and the text of an error, made storable.

    An error without a text of its own, such as those that Django's engine for MongoDB
    raises, is described by its cause.
    """
    text = storable(error)
    if not text and (cause := error.__cause__):
        text = f"{type(cause).__name__}: {storable(cause)}"
    return storable(f"{type(error).__name__}: {text}", length)


def duration(seconds: float | None) -> str:
    """Return a time in the largest unit of which there are two; "-" for None."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def translated(text: str) -> str:
    """Return a docstring or description, in the active language if it has it."""
    return gettext(" ".join(text.split())) if text else ""
