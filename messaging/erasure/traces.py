"""By what a person is found in texts, bodies and documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Traces:
    """
    What identifies one person.

    `texts` do anywhere, in any case, unless they are part of a longer word: an e-mail.
    `keys` are partition keys, such as `user:5`, and stand alone.
    """

    texts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    #: Texts that identify the person if one value has all of them: the parts of a name.
    #: Another person may have the same name: what has only these is not erased.
    names: tuple[str, ...] = ()

    def are_in(self, value: Any) -> bool:
        """Return whether a value has a text or a key; JSON is read, too."""
        return any(self._identifies(text) for text in texts_in(value))

    def may_be_in(self, value: Any) -> bool:
        """Return whether a value has a text, a key or all names."""
        if self.are_in(value):
            return True
        whole = "\n".join(texts_in(value)).casefold()
        return bool(self.names) and all(n.casefold() in whole for n in self.names)

    def _identifies(self, text: str) -> bool:
        return text in self.keys or any(word(one).search(text) for one in self.texts)

    def forms(self) -> list[str]:
        """Return texts and keys as they may be within a value: JSON has its escapes."""
        texts = {form for text in self.texts for form in forms_of(text)}
        return sorted(
            texts | {f'"{form}"' for key in self.keys for form in forms_of(key)}
        )


@cache
def word(text: str) -> re.Pattern[str]:
    """Return what finds a text, but no longer word: ann@x.org is not joann@x.org."""
    return re.compile(rf"(?<![\w.+-]){re.escape(text)}(?![\w-]|\.\w)", re.IGNORECASE)


def forms_of(text: str) -> set[str]:
    """Return a text as it is, and as JSON has it that escapes all beyond ASCII."""
    return {text, json.dumps(text)[1:-1]}


def texts_in(value: Any) -> Iterator[str]:
    """Yield all texts in a value, which may be JSON in a text, or a text in bytes."""
    match value:
        case bytes() | bytearray() | memoryview():
            yield from texts_in(bytes(value).decode(errors="replace"))
        case str():
            yield value
            if value.lstrip()[:1] in ("{", "["):
                try:
                    parsed = json.loads(value)
                except (ValueError, RecursionError):
                    return
                yield from texts_in(parsed)
        case Mapping():
            for name, one in value.items():
                yield str(name)
                yield from texts_in(one)
        case list() | tuple():
            for one in value:
                yield from texts_in(one)
