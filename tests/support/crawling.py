"""Every page of the project: found by its links, measured, read and photographed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import BASE
from .browser import DESKTOP, PHONE, visit

#: Where all pictures are stored.
FOLDER = BASE / ".local" / "screenshots"
#: What is no page, or would end the session.
NO_PAGE = re.compile(
    r"^/(static|metrics|health|api/schema|api/messages/asyncapi|admin/jsi18n|operations)\b|logout|/file/$"
)
#: Parts of an address by which pages of the same kind differ, in admin and API.
KEY = re.compile(r"(?<=/)[^/]+(?=/(change|delete|history|password)/$)")
RESOURCE = re.compile(r"^(/users|/reports)/[^/]+(?=/)")
#: Words of one language that a page in another one has no use for.
WORDS = {
    "en": re.compile(
        r"(?<![\w.])(the|and|is|are|of|with|select|save|delete|change|add|view|home|search|"
        r"filters?|waiting|failed|rejected|queue|submit|log (in|out)|password|raw data|"
        r"welcome|recent actions|form|parameters|responses|try it out|yes|"
        r"today)(?!\.?\w)",
        re.IGNORECASE,
    ),
    "es": re.compile(
        r"(?<![\w.])(el|la|los|las|de|del|con|una?|es|para|seleccione|guardar|eliminar|"
        r"modificar|añadir|ver|inicio|buscar|filtros?|espera|fallido|rechazado|cola|"
        r"iniciar|cerrar|contraseña|usuarios?|reportes?|hoy|sí)(?!\.?\w)",
        re.IGNORECASE,
    ),
}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
#: What no page translates: data, code, and why a program has failed.
DATA = (
    "pre, code, textarea, option, .sign, .groups th[scope=row], .field-error,"
    ".field-short_error, .field-reason, .field-short_reason, .field-problem,"
    ".field-exception, .field-code, .field-what, .field-failed_again, .reason"
)


def kind_of(path: str) -> str:
    """Return what the addresses of pages of the same kind have in common."""
    return RESOURCE.sub(r"\1/*", KEY.sub("*", path))


def crawl(page: Any, url: str, start: list[str], within: str) -> Iterator[str]:
    """Visit each kind of page to which others link, from `start` on; yield its name."""
    waiting, seen = list(start), set[str]()
    while waiting:
        path = waiting.pop(0)
        if kind_of(path) in seen or NO_PAGE.search(path):
            continue
        seen.add(kind_of(path))
        answer = visit(page, url + path)
        assert answer.status == 200, f"{path}: {answer.status}"
        yield kind_of(path)
        links = page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)")
        for link in map(urlsplit, links):
            if f"{link.scheme}://{link.netloc}" == url and link.path.startswith(within):
                waiting.append(link.path)


def take(page: Any, name: str) -> dict[str, Path]:
    """Store a picture for each size and scheme; fails if a page is too wide."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    taken = {}
    for width, height in (DESKTOP, PHONE):
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            full_name = f"{name}-{width}-{scheme}"
            taken[full_name] = FOLDER / f"{full_name}.png"
            page.screenshot(
                path=taken[full_name], full_page=True, animations="disabled"
            )
        needed = page.evaluate("document.documentElement.scrollWidth")
        assert needed <= width, f"{name} needs {needed} pixels"
    return taken


def foreign_words(page: Any, language: str) -> list[str]:
    """Return words of a page that belong to the other language, with their lines."""
    other = "en" if language == "es" else "es"
    text = page.evaluate(
        """data => {
            const copy = document.body.cloneNode(true);
            const omitted = copy.querySelectorAll(`script, style, ${data}`);
            omitted.forEach(one => one.remove());
            copy.style.position = "absolute";
            document.body.append(copy);
            const text = copy.innerText;
            copy.remove();
            const places = [...document.querySelectorAll("[title], [placeholder]")]
                .filter(one => !one.closest(data) && !one.closest("script"))
                .flatMap(one => [one.title, one.placeholder ?? ""]);
            return [document.title, text, ...places].join("\\n");
        }""",
        DATA,
    )
    return [
        f"{found[0]}: {line.strip()}"
        for line in text.splitlines()
        if line.strip() not in METHODS
        for found in WORDS[other].finditer(line)
    ]
