"""`make pin-images` writes digests into the files that name images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support import BASE

FILES = ("Dockerfile", "compose.yaml", "compose.prod.yaml")
#: Whose images are pinned.
NAMES = {"python", "nginx", "rabbitmq", "mysql", "mongo"}


class Registry(BaseHTTPRequestHandler):
    """Answers like Docker Hub: a token first, then a digest made of name and tag."""

    unknown = ""

    def do_GET(self) -> None:
        self.answer(200, body=json.dumps({"token": "let-me-read"}).encode())

    def do_HEAD(self) -> None:
        if self.headers["Authorization"] != "Bearer let-me-read":
            host = self.headers["Host"]
            challenge = f'Bearer realm="http://{host}/token",service="registry"'
            self.answer(401, **{"WWW-Authenticate": challenge})
            return
        _, _, _, name, _, tag = self.path.split("/")
        if name == self.unknown or "image.index" not in self.headers["Accept"]:
            self.answer(404)
            return
        self.answer(200, **{"Docker-Content-Digest": digest(f"{name}:{tag}")})

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def digest(image: str) -> str:
    """Return a digest that only this image has."""
    return f"sha256:{image.encode().hex().zfill(64)}"


@pytest.fixture
def registry() -> Iterator[str]:
    """The address of a registry."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    Registry.unknown = ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that name images."""
    for name in FILES:
        shutil.copy(BASE / name, tmp_path)
    return tmp_path


def pin(folder: Path, registry: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    program = str(BASE / "deploy" / "pin-images")
    return subprocess.run(
        [sys.executable, program, registry], cwd=folder, capture_output=True, text=True
    )


def texts(folder: Path) -> str:
    """Return what the files say."""
    return "".join((folder / name).read_text() for name in FILES)


def test_every_image_of_a_registry_gets_its_digest(folder: Path, registry: str) -> None:
    before = texts(folder)

    done = pin(folder, registry)

    assert done.returncode == 0, done.stderr
    pinned = re.findall(r"(\w+):(\S+)@(sha256:\w+)", texts(folder))
    assert {name for name, _, _ in pinned} == NAMES
    for name, tag, found in pinned:
        assert found == digest(f"{name}:{tag}")
        assert f"{name}:{tag}@{found}" in done.stdout
    # Nothing else has changed: neither the project's own image, nor a line.
    assert re.sub(r"@sha256:\w+", "", texts(folder)) == before


def test_an_old_digest_is_replaced(folder: Path, registry: str) -> None:
    pin(folder, registry)
    once = texts(folder)
    path = folder / "compose.yaml"
    path.write_text(path.read_text().replace("mysql:8.4.6@", "mysql:8.4.7@"))

    pin(folder, registry)

    assert digest("mysql:8.4.7") in texts(folder)
    assert texts(folder).count("@sha256:") == once.count("@sha256:")


def test_nothing_is_written_if_one_image_is_unknown(
    folder: Path, registry: str
) -> None:
    before = texts(folder)
    Registry.unknown = "rabbitmq"

    refused = pin(folder, registry)

    assert refused.returncode == 1
    assert "rabbitmq:4" in refused.stderr
    assert "404" in refused.stderr
    assert texts(folder) == before


def test_without_a_registry_one_line_says_so(folder: Path) -> None:
    refused = pin(folder, "http://127.0.0.1:1")

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "Connection refused" in refused.stderr
    assert "No file is changed" in refused.stderr
