"""
Every text that people see has a translation.

Those of `messaging` are in English and translated to Spanish, those of the project and
its apps the other way round.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils.translation import gettext, ngettext, override

from tests.support import BASE

FUNCTIONS = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy"}
#: Texts in templates: plain ones, and blocks without variables of the template.
TAGS = re.compile(
    r'{% translate "([^"]+)" %}|{% blocktranslate[^%]*%}([^{]+){% endblocktranslate %}'
)


def texts(*folders: str) -> Iterator[tuple[str, ...]]:
    """Yield the texts that are passed to translation functions and tags."""
    for folder in folders:
        for path in sorted((BASE / folder).rglob("*.py")):
            yield from texts_of(path)
        for path in sorted((BASE / folder).rglob("*.html")):
            for found in TAGS.finditer(path.read_text()):
                yield (found[1] or found[2],)


def texts_of(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the texts that are passed to translation functions in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in FUNCTIONS:
            found = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if found:  # docstrings of messages come from elsewhere
                yield tuple(str(text) for text in found)


def translated(text: tuple[str, ...], language: str) -> set[str]:
    """Return the forms of a text in a language."""
    with override(language):
        if text[1:]:
            return {ngettext(*text, 1), ngettext(*text, 2)}
        return {gettext(text[0])}


@pytest.mark.parametrize(
    "text", sorted(set(texts("messaging"))), ids=lambda text: text[0][:40]
)
def test_a_text_is_translated(text: tuple[str, ...]) -> None:
    # These are Spanish words, too.
    assert not translated(text, "es") & {*text} - {"bytes", "error"}


@pytest.mark.parametrize(
    "text",
    sorted(set(texts("project", "users", "reports"))),
    ids=lambda text: text[0][:40],
)
def test_a_text_of_the_project_is_translated(text: tuple[str, ...]) -> None:
    # These are English words, too.
    assert not translated(text, "en") & {*text} - {"id", "e-mail", "normal"}


def test_accounts_are_not_called_like_the_users_of_the_project() -> None:
    names = {language: translated(("users",), language) for language in ("es", "en")}

    assert names == {"es": {"cuentas de acceso"}, "en": {"accounts"}}
