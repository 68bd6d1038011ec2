"""The browsable API: forms on every endpoint, sent as a browser sends them."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
import requests

from reports.models import Report
from tests.support.processes import API
from tests.support.waiting import eventually
from users.models import User

ANA = {
    "nombre": "Ana",
    "apellido": "Ruiz",
    "email": "ana@example.com",
    "fecha_nacimiento": "1990-12-31T08:30:00Z",
    "url_foto_perfil": "https://example.com/a.png",
    "biografia": "Una línea\ny otra",
}
HOSTILE = """<script>alert("x")</script>'"><img src=x onerror=alert(1)>{{ 7 * 7 }}"""
UNESCAPED = ('<script>alert("x")', "<img src=x", ">49")
HTML = {"Accept": "text/html"}
WAIT = {"Prefer": "wait=10"}


class Page(HTMLParser):
    """The forms and errors of a page."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self.path = answer.request.path_url
        self.text = answer.text
        #: Fields and their values, by method; not those of raw data and filters.
        self.forms: dict[str, dict[str, str]] = {}
        self.types: dict[str, str] = {}
        self.errors: list[str] = []
        self._form: dict[str, str] = {}
        self._is_filled_in = False
        self._area = ""
        self._is_error = False
        assert answer.headers["Content-Type"].startswith("text/html")
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect fields, as a browser would send them."""
        given = dict(attrs)
        name = given.get("name") or ""
        self._is_error = "help-block" in (given.get("class") or "")
        if tag == "form":
            self._form = {}
            self._is_filled_in = "enctype" in given
            if self._is_filled_in:
                method = given.get("data-method") or given.get("method") or ""
                self.forms[method.upper()] = self._form
        elif tag == "input" and name:
            kind = given.get("type") or "text"
            if self._is_filled_in:
                self.types[name] = kind
            if kind != "checkbox" or "checked" in given:
                self._form[name] = given.get("value") or ""
        elif tag == "textarea":
            self._area = name
            self._form[name] = ""

    def handle_endtag(self, tag: str) -> None:
        """Leave a box of several lines."""
        if tag == "textarea":
            self._area = ""
        self._is_error = False

    def handle_data(self, data: str) -> None:
        """Take the text of a box or of an error."""
        if self._area:
            # HTML drops the line feed after the opening tag.
            self._form[self._area] += data
        if self._is_error and data.strip():
            self.errors.append(data.strip())

    def submit(self, api: API, method: str, **changes: str) -> Page:
        """Fill in the form of a method, send it, and return the resulting page."""
        form = {
            name: value.removeprefix("\n") for name, value in self.forms[method].items()
        }
        form |= changes
        files = [(name, (None, value)) for name, value in form.items()]
        return Page(api(method, self.path, files=files, headers=HTML))


def page(api: API, path: str) -> Page:
    """Open a page."""
    answer = api.get(path, headers=HTML)
    assert answer.status_code == 200, answer.text
    return Page(answer)


@pytest.fixture
def user(api: API, consumers: None) -> int:
    """A user, by id."""
    return api.post("/users/", ANA, headers=WAIT).json()["user_id"]


@pytest.fixture
def report(api: API, user: int) -> str:
    """A report, by id."""
    body = {"id_usuario": user, "tipo_reporte": 1, "descripcion": "Un bache"}
    return api.post("/reports/", body, headers=WAIT).json()["id_reporte"]


def test_a_user_is_created_with_the_form(api: API, consumers: None) -> None:
    form = page(api, "/users/")
    assert form.forms["POST"].keys() - {"csrfmiddlewaretoken"} == ANA.keys()
    assert (form.types["email"], form.types["url_foto_perfil"]) == ("email", "url")

    # What a browser sends of fields left empty is empty, not missing.
    sent = form.submit(
        api, "POST", nombre="Eva", apellido="Sanz", email="eva@example.com"
    )

    assert "202 Accepted" in sent.text
    assert "Usuario enviado a cola para procesamiento" in sent.text
    user = eventually(User.objects.first, "the user")
    assert (user.nombre, user.biografia, user.fecha_nacimiento) == ("Eva", "", None)


def test_a_user_is_changed_with_the_form_as_it_is_filled_in(
    api: API, user: int
) -> None:
    before = User.objects.values().get()
    form = page(api, f"/users/{user}/")
    assert form.forms["PUT"]["email"] == "ana@example.com"

    sent = form.submit(api, "PUT", nombre="Ana María", biografia="")

    assert "202 Accepted" in sent.text
    eventually(lambda: User.objects.filter(nombre="Ana María").first(), "the change")
    after = User.objects.values().get()
    assert before | {"nombre": "Ana María", "biografia": ""} == after


def test_a_report_is_created_with_the_form(api: API, user: int) -> None:
    form = page(api, "/reports/")

    sent = form.submit(
        api, "POST", id_usuario=str(user), tipo_reporte="2", descripcion="Un árbol"
    )

    assert "Reporte enviado a cola para procesamiento" in sent.text
    report = eventually(Report.objects.first, "the report")
    assert (report.tipo_reporte, report.ubicacion) == (2, "")


def test_the_visibility_of_a_report_is_changed_with_the_form_as_it_is_filled_in(
    api: API, report: str
) -> None:
    api.patch(f"/reports/{report}/", {"visibilidad": 1.25}, headers=WAIT)
    form = page(api, f"/reports/{report}/")
    # A comma, as Spanish has it, would be nothing to a browser.
    assert form.forms["PATCH"] == {"visibilidad": "1.25"}
    assert form.types["penalize_author"] == "checkbox"

    sent = form.submit(api, "PATCH", penalize_author="true")

    assert "Actualización de visibilidad enviada a cola" in sent.text
    eventually(lambda: User.objects.filter(calificacion=4.5).first(), "the penalty")
    assert Report.objects.get().visibilidad == 1.25


@pytest.mark.parametrize("path", ["/users/", "/reports/"])
def test_a_resource_is_deleted_with_the_button(
    api: API, report: str, path: str
) -> None:
    found = page(api, path)
    key = User.objects.get().pk if path == "/users/" else report
    assert 'data-method="DELETE"' in page(api, f"{path}{key}/").text
    assert 'data-method="DELETE"' not in found.text

    answer = api.delete(f"{path}{key}/", headers=HTML)

    assert "202 Accepted" in answer.text
    eventually(lambda: api.get(f"{path}{key}/").status_code == 404, "it is gone")


@pytest.mark.parametrize(
    ("place", "method", "changes", "error"),
    [
        (
            lambda user, report: "/users/",
            "POST",
            {"nombre": "Eva", "email": "eva"},
            "Introduzca una dirección de correo electrónico válida.",
        ),
        (
            lambda user, report: f"/users/{user}/",
            "PUT",
            {"apellido": " ", "biografia": "Otra"},
            "Este campo no puede estar vacío.",
        ),
        (
            lambda user, report: "/reports/",
            "POST",
            {"id_usuario": "0", "descripcion": "Un árbol"},
            "Asegúrese de que este valor es mayor o igual a 1.",
        ),
        (
            lambda user, report: f"/reports/{report}/",
            "PATCH",
            {"visibilidad": "1001"},
            "Asegúrese de que este valor es menor o igual a 1000.0.",
        ),
    ],
    ids=["new user", "user", "new report", "report"],
)
def test_a_refused_form_comes_back_as_it_was_sent_with_its_errors(
    api: API,
    user: int,
    report: str,
    place: Callable[[int, str], str],
    method: str,
    changes: dict[str, str],
    error: str,
) -> None:
    form = page(api, place(user, report))

    back = form.submit(api, method, **changes)

    assert "400 Bad Request" in back.text
    assert error in back.errors
    shown = {name: back.forms[method][name].strip() for name in changes}
    assert shown == {name: value.strip() for name, value in changes.items()}


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b'{"nombre": {"a": ["b"]}, "email": 5, "apellido": null}'],
)
def test_a_body_that_no_form_sends_is_refused_on_a_page(api: API, body: bytes) -> None:
    headers = HTML | {"Content-Type": "application/json"}

    answer = api("POST", "/users/", data=body, headers=headers)

    assert answer.status_code == 400
    assert answer.headers["Content-Type"].startswith("text/html")


def test_every_page_escapes_hostile_texts(api: API, user: int, report: str) -> None:
    texts = {"nombre": HOSTILE[:100], "biografia": HOSTILE}
    api.patch(f"/users/{user}/", texts, headers=WAIT)
    body = {"id_usuario": user, "tipo_reporte": 1}
    texts = {"descripcion": HOSTILE, "ubicacion": HOSTILE}
    made = api.post("/reports/", body | texts, headers=WAIT).json()["id_reporte"]
    bad = {"nombre": HOSTILE, "email": HOSTILE, "url_foto_perfil": HOSTILE}

    answers = [
        api.get("/users/", headers=HTML),
        api.get(f"/users/{user}/", headers=HTML),
        api.get("/users/", headers=HTML, params={"search": "Ana", "apellido": HOSTILE}),
        api.get("/users/", headers=HTML, params={"calificacion_min": HOSTILE}),
        api.get("/users/", headers=HTML, params={"cursor": HOSTILE}),
        api.post("/users/", bad, headers=HTML),
        api("POST", "/users/", data=bad, headers=HTML),
        api.patch(f"/users/{user}/", texts | {"nombre": HOSTILE * 3}, headers=HTML),
        api.get("/reports/", headers=HTML),
        api.get(f"/reports/{made}/", headers=HTML),
        api.get(f"/reports/{HOSTILE}/", headers=HTML),
        api.get(f"/users/?format={HOSTILE}", headers=HTML),
    ]

    assert [one.url for one in answers if one.status_code >= 500] == []
    assert [
        one.url
        for one in answers
        if one.headers["Content-Type"].startswith("text/html")
        and any(text in one.text for text in UNESCAPED)
    ] == []
    assert "&lt;script&gt;alert" in answers[0].text


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/", "Usuarios y reportes"),
        ("/users/", "Usuarios"),
        ("/users/{user}/", "Usuario"),
        ("/reports/", "Reportes"),
        ("/reports/{report}/", "Reporte"),
    ],
)
def test_pages_have_spanish_names_and_link_to_each_other(
    api: API, user: int, report: str, path: str, title: str
) -> None:
    found = page(api, path.format(user=user, report=report))

    assert f"<title>{title}</title>" in found.text
    assert f"<h1>{title}</h1>" in found.text
    assert '<a class="navbar-brand" href="/">Usuarios y reportes</a>' in found.text


def test_forms_of_a_filtered_list_are_sent_without_its_filter(api: API) -> None:
    text = page(api, "/users/?search=Ana&page_size=2").text

    assert 'action="/users/"' in text
    assert 'action="/users/?' not in text


def test_a_long_list_has_buttons_to_go_on(api: API) -> None:
    for n in range(3):
        User.objects.create(
            nombre="N", apellido="A", email=f"{n}@example.com",
            fecha_creacion="2024-01-01T00:00:00Z",
        )  # fmt: skip
    text = page(api, "/users/?page_size=2").text

    assert "Siguiente" in text
    assert "Anterior" in text


def test_a_user_with_everything_reads_back_in_the_form(api: API, user: int) -> None:
    values: dict[str, Any] = page(api, f"/users/{user}/").forms["PUT"]

    # A browser shows a moment without a zone only.
    assert values["fecha_nacimiento"] == "1990-12-31T08:30:00.000"
    assert values["biografia"].strip() == ANA["biografia"]
