"""nginx with the configuration of docs/nginx.conf, as a private process."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Self

from messaging.lab.processes import find_program, free_port
from tests.support import BASE

from .asgi import Answer
from .certificates import Authority
from .waiting import eventually

HOST = "api.example.com"
#: The environment of an API that it is before.
BEHIND = {
    "DEBUG": "0",
    "OPEN_ACCESS": "0",
    "BEHIND_PROXY": "1",
    "ALLOWED_HOSTS": f"{HOST},127.0.0.1",
}
CONFIGURATION = BASE / "docs" / "nginx.conf"


class Nginx:
    """A process with ports, paths and certificates of its own."""

    def __init__(self, directory: Path, api_port: int) -> None:
        self._authority = Authority(directory)
        certificate, key = self._authority.issue(HOST)
        self.port, self.plain_port = free_port(), free_port()
        self.static = directory / "static"
        self.static.mkdir()
        self.log = directory / "error.log"
        self._process: subprocess.Popen[bytes] | None = None
        own = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "listen 80 ": f"listen 127.0.0.1:{self.plain_port} ",
            f"/etc/ssl/certs/{HOST}.pem": str(certificate),
            f"/etc/ssl/private/{HOST}.key": str(key),
            "127.0.0.1:8000": f"127.0.0.1:{api_port}",
            "/srv/project/static/": f"{self.static}/",
            "/run/nginx.pid": str(directory / "nginx.pid"),
            "/var/log/nginx/error.log": str(self.log),
            "/var/log/nginx/access.log": str(directory / "access.log"),
        }
        text = CONFIGURATION.read_text()
        for theirs, mine in own.items():
            assert theirs in text, theirs
            text = text.replace(theirs, mine)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{one}_temp_path {directory}/{one};\n" for one in kinds)
        # A second one, which is as much work for nginx, and none for the API.
        self.idle_port = free_port()
        idle = (
            f"server {{ listen 127.0.0.1:{self.idle_port} ssl; server_name {HOST};\n"
            f"ssl_certificate {certificate}; ssl_certificate_key {key};\n"
            "return 429 '{}'; }\n"
        )
        text = text.replace("http {\n", f"http {{\n{folders}{idle}", 1)
        self.configuration = directory / "nginx.conf"
        self.configuration.write_text(text)

    def __enter__(self) -> Self:
        program = find_program("nginx")
        assert program, "nginx is not installed: apt-get install nginx."
        command = [program, "-c", str(self.configuration), "-e", str(self.log)]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        self._process = subprocess.Popen([*command, "-g", "daemon off;"])
        eventually(lambda: self._answers(), "nginx answers", 10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(10)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    @property
    def trusted(self) -> Path:
        """The certificate that clients have to trust."""
        return self._authority.certificate

    def tls(self, trusted: Path | None = None) -> ssl.SSLContext:
        """Return what a client needs that trusts the authority, or another one."""
        return ssl.create_default_context(cafile=str(trusted or self.trusted))

    def connect(self, source: str = "127.0.0.1", name: str = HOST) -> ssl.SSLSocket:
        """Return a connection over TLS from an address of this machine."""
        plain = socket.create_connection(
            ("127.0.0.1", self.port), timeout=20, source_address=(source, 0)
        )
        return self.tls().wrap_socket(plain, server_hostname=name)

    def ask(
        self,
        line: str,
        body: bytes | None = None,
        *,
        source: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        """Send a request such as "GET /users/" from an address."""
        method, _, path = line.partition(" ")
        connection = http.client.HTTPConnection(HOST)
        connection.sock = self.connect(source)
        named = {re.sub("_", "-", name): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()
