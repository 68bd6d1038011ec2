"""Every text that `messaging` shows to users has a Spanish translation."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from django.utils.translation import gettext, ngettext, override

from tests.support import BASE

FUNCTIONS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy"}


def texts() -> Iterator[tuple[str, ...]]:
    """Yield the texts that are passed to translation functions."""
    for path in sorted((BASE / "messaging").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in FUNCTIONS:
                found = [a.value for a in node.args if isinstance(a, ast.Constant)]
                yield tuple(str(text) for text in found)


@pytest.mark.parametrize("text", sorted(set(texts())), ids=lambda text: text[0][:40])
def test_a_text_is_translated(text: tuple[str, ...]) -> None:
    with override("es"):
        forms = {ngettext(*text, 1), ngettext(*text, 2)} if text[1:] else set()
        forms |= {gettext(text[0])} if not forms else set()

    # These are Spanish words, too.
    assert not forms & {*text} - {"bytes", "error"}
