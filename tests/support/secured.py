"""Servers that speak TLS only, and only with clients that show a certificate."""

from __future__ import annotations

import shutil
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote_plus

import MySQLdb

from messaging.lab.processes import free_port
from messaging.lab.proxy import Proxy
from messaging.lab.server import Server
from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ

from .certificates import Authority

#: The only address of all servers, and the user whom the clients' certificate names.
HOST, CLIENT = "127.0.0.1", "guest"


class Secured:
    """RabbitMQ, MariaDB, and MongoDB behind a proxy, which show one certificate."""

    def __init__(self, directory: Path) -> None:
        (directory / "foreign").mkdir(parents=True)
        self.authority = Authority(directory)
        self.foreign = Authority(directory / "foreign")
        self.client, self.client_key = self.authority.issue(CLIENT)
        #: Both in one file, as MongoDB's client wants it.
        self.client_both = directory / "client.pem"
        self.client_both.write_text(
            self.client.read_text() + self.client_key.read_text()
        )
        self._certificates = {
            "right": self.authority.issue(HOST),
            "of another host": self.authority.issue("other.example.com"),
            "expired": self.authority.issue(HOST, days=-1),
            "foreign": self.foreign.issue(HOST),
        }
        self._shown = directory / "shown.pem", directory / "shown.key"
        self._copy("right")
        authority, (certificate, key) = self.authority.certificate, self._shown
        self.tls_port, self.proxy_port = free_port(), free_port()
        self.rabbitmq = RabbitMQ(directory / "rabbitmq")
        self.rabbitmq.plugins = ["rabbitmq_auth_mechanism_ssl"]
        self.rabbitmq.options = [
            f"listeners.ssl.1 = {HOST}:{self.tls_port}",
            f"ssl_options.cacertfile = {authority}",
            f"ssl_options.certfile = {certificate}",
            f"ssl_options.keyfile = {key}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
            "ssl_cert_login_from = common_name",
            "auth_mechanisms.1 = PLAIN",
            "auth_mechanisms.2 = EXTERNAL",
        ]
        self.mariadb = MariaDB(directory / "mariadb")
        self.mariadb.options = [
            f"--ssl-ca={authority}",
            f"--ssl-cert={certificate}",
            f"--ssl-key={key}",
        ]
        self.mongodb = MongoDB(directory / "mongodb")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_verify_locations(authority)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(certificate, key)
        self._proxy: Proxy | None = None

    def start(self) -> None:
        """Start all servers."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(Server.start, (self.rabbitmq, self.mariadb, self.mongodb)))
        self._proxy = Proxy(self.proxy_port, self.mongodb.address, tls=self._context)
        self._proxy.start()
        self._run(
            f"CREATE USER tls@'{HOST}' IDENTIFIED BY '{self.mariadb.password}' "
            "REQUIRE X509"
        )
        self._run(f"GRANT ALL ON messaging.* TO tls@'{HOST}'")

    def stop(self) -> None:
        """Stop all servers."""
        if self._proxy:
            self._proxy.stop()
        for server in (self.rabbitmq, self.mariadb, self.mongodb):
            server.stop()

    def show(self, kind: str) -> None:
        """Let all servers show another certificate to clients that come from now on."""
        self._copy(kind)
        self._context.load_cert_chain(*self._shown)
        self._run("FLUSH SSL")
        self.rabbitmq.control("eval", "ssl:clear_pem_cache().")

    def urls(
        self, *, client: bool = True, authority: Path | None = None
    ) -> dict[str, str]:
        """Return the addresses, with a certificate of the client or without."""
        trusted = quote_plus(str(authority or self.authority.certificate))
        certificate, key = map(quote_plus, map(str, (self.client, self.client_key)))
        both = quote_plus(str(self.client_both))
        amqp = f"&certfile={certificate}&keyfile={key}" if client else ""
        mysql = f"&ssl_cert={certificate}&ssl_key={key}" if client else ""
        mongodb = f"&tlsCertificateKeyFile={both}" if client else ""
        passwords = self.rabbitmq.password, self.mariadb.password
        return {
            "RABBITMQ_URL": f"amqps://guest:{passwords[0]}@{HOST}:{self.tls_port}/"
            f"?cacertfile={trusted}{amqp}",
            "DATABASE_URL": f"mysql://tls:{passwords[1]}@{HOST}:{self.mariadb.port}"
            f"/messaging?ssl_ca={trusted}{mysql}",
            "MONGODB_URL": f"mongodb://{HOST}:{self.proxy_port}/reports"
            f"?tls=true&tlsCAFile={trusted}{mongodb}",
            "MONGODB_ENGINE": self.mongodb.engine,
        }

    def _copy(self, kind: str) -> None:
        for source, target in zip(self._certificates[kind], self._shown, strict=True):
            shutil.copy(source, target)

    def _run(self, statement: str) -> None:
        """Run a statement as MariaDB's root, whose account needs no certificate."""
        connection = MySQLdb.connect(
            host=HOST, port=self.mariadb.port, user="root",
            password=self.mariadb.password,
        )  # fmt: skip
        connection.query(statement)
        connection.close()
