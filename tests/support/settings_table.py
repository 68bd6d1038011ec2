"""
The table of docs/settings.md, made of the comments in messaging/conf.py.

    python -m tests.support.settings_table    # writes it into the document
"""

from __future__ import annotations

from collections.abc import Iterator

from messaging.conf import DEFAULTS

from . import BASE

DOCUMENT = BASE / "docs" / "settings.md"
HEAD = "| Key | Default | Meaning |\n|---|---|---|\n"


def table() -> str:
    """Return the table."""
    return HEAD + "".join(
        f"| `{name}` | `{DEFAULTS[name]!r}` | {meaning} |\n"
        for name, meaning in meanings()
    )


def meanings() -> Iterator[tuple[str, str]]:
    """Yield each key of `DEFAULTS` and the comment above it."""
    source = (BASE / "messaging" / "conf.py").read_text()
    comment: list[str] = []
    for line in source.partition("DEFAULTS: ")[2].splitlines():
        if line == "}":
            return
        text = line.strip()
        if text.startswith("#:"):
            comment.append(text.removeprefix("#:").strip())
        elif text.startswith('"') and comment:
            yield text.split('"')[1], " ".join(comment)
            comment.clear()


def document() -> str:
    """Return the document with the current table."""
    before, _, after = DOCUMENT.read_text().partition(HEAD)
    rest = after.partition("\n\n")[2]
    return f"{before}{table()}\n{rest}"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
