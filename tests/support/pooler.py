"""PgBouncer before a PostgreSQL server."""

from __future__ import annotations

import os
from pathlib import Path

from messaging.lab.processes import free_port
from messaging.lab.server import Server
from messaging.lab.servers import PostgreSQL, required


class PgBouncer(Server):
    """A pooler that any user of this machine may use, for as long as a test lasts."""

    mode = 0o755

    def __init__(self, directory: Path, target: PostgreSQL, pool_mode: str) -> None:
        super().__init__(directory, free_port())
        self.target = target
        self.pool_mode = pool_mode

    def url_at(self, address: int | Path) -> str:
        """Return the URL of the pooled database."""
        return f"postgres://postgres@127.0.0.1:{address}/messaging"

    def launch(self) -> None:
        """Start it as another user than root, which it refuses."""
        configuration = self.directory / "pgbouncer.ini"
        configuration.write_text(
            "[databases]\n"
            f"messaging = host=127.0.0.1 port={self.target.port} user=postgres "
            f"password={self.target.password}\n"
            "[pgbouncer]\n"
            "listen_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\n"
            "unix_socket_dir =\n"
            "auth_type = any\n"
            f"pool_mode = {self.pool_mode}\n"
            "ignore_startup_parameters = extra_float_digits,options\n"
        )
        own = ["-u", "postgres"] if os.geteuid() == 0 else []
        self.spawn([required("pgbouncer", "pgbouncer"), *own, str(configuration)])

    def ping(self) -> None:
        """Raise an error unless it serves a client."""
        import psycopg

        psycopg.connect(self.url.replace("postgres:", "postgresql:", 1)).close()
