"""Two private MariaDB servers, of which one replicates the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import MySQLdb

from messaging.lab.processes import free_port
from messaging.lab.servers import MariaDB

from .waiting import eventually

#: A client without the right to write to a server that is read-only.
USER = "shop"
#: Milliseconds for which the primary waits for its replica.
WEEK = 604_800_000


class Member(MariaDB):
    """A server that can be a primary or a replica."""

    def __init__(
        self,
        directory: Path,
        number: int,
        port: int | None = None,
        *,
        semi_sync: bool = True,
    ) -> None:
        super().__init__(directory, port or free_port())
        mode = "ON" if semi_sync else "OFF"
        self.options = [
            f"--server-id={number}",
            "--log-bin=binlog",
            "--log-slave-updates",
            "--sync-binlog=1",
            "--binlog-format=ROW",
            f"--rpl-semi-sync-master-enabled={mode}",
            f"--rpl-semi-sync-slave-enabled={mode}",
            "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            f"--rpl-semi-sync-master-timeout={WEEK}",
            # A replica writes a transaction again if it dies in between.
            "--gtid-strict-mode=ON",
        ]

    def url_at(self, address: int | Path) -> str:
        """Return the URL of the user that obeys read_only."""
        return f"mysql://{USER}:{self.password}@127.0.0.1:{address}/messaging"

    def execute(self, *statements: str) -> dict[str, Any]:
        """Execute statements as an operator, and return the row of the last one."""
        connection = MySQLdb.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            password=self.password,
            connect_timeout=5,
            autocommit=True,
        )
        try:
            cursor = connection.cursor(MySQLdb.cursors.DictCursor)
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchone() or {}
        finally:
            connection.close()


class Pair:
    """A primary and its replica."""

    def __init__(self, primary: Member, replica: Member) -> None:
        self.primary = primary
        self.replica = replica

    @classmethod
    def below(cls, directory: Path, *, semi_sync: bool = True) -> Self:
        """Return a pair with data in a directory."""
        return cls(
            Member(directory / "one", 1, semi_sync=semi_sync),
            Member(directory / "other", 2, semi_sync=semi_sync),
        )

    def start(self) -> None:
        """Start both, and let one replicate the other."""
        # One password, so that a client needs no other after a fail-over.
        for member in (self.primary, self.replica):
            member._make_directory()
        (self.replica.directory / "password").write_text(self.primary.password)
        for member in (self.primary, self.replica):
            # What follows must not wait for a replica that is not there yet.
            member.options.append("--rpl-semi-sync-master-enabled=OFF")
            member.start()
            member.execute(
                f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{member.password}'",
                f"GRANT ALL ON messaging.* TO {USER}@'127.0.0.1'",
                "RESET MASTER",
            )
        self._attach()

    def _attach(self) -> None:
        """Let the replica follow the primary from where it is."""
        self.replica.execute(
            "SET GLOBAL read_only = ON",
            "SET GLOBAL rpl_semi_sync_master_enabled = OFF",
            "SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_binlog_pos",
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', "
            f"MASTER_PORT = {self.primary.port}, MASTER_USER = 'root', "
            f"MASTER_PASSWORD = '{self.primary.password}', "
            "MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1",
            "START SLAVE",
        )
        if "--rpl-semi-sync-slave-enabled=ON" in self.primary.options:
            self.primary.execute("SET GLOBAL rpl_semi_sync_master_enabled = ON")
            eventually(self.is_lossless, "the replica acknowledges", 20)

    def switch_over(self) -> None:
        """Exchange the roles of two living servers, without ending a connection."""
        self.primary.execute("SET GLOBAL read_only = ON")
        self.catch_up()
        self.replica.execute("STOP SLAVE", "RESET SLAVE ALL")
        self.primary, self.replica = self.replica, self.primary
        self._attach()
        self.primary.execute("SET GLOBAL read_only = OFF")

    def fail_over(self) -> None:
        """Kill the primary, and promote the replica."""
        self.primary.kill()
        self.promote()

    def stop(self) -> None:
        """Stop both."""
        for member in (self.primary, self.replica):
            member.kill()

    def is_lossless(self) -> bool:
        """Return whether the primary waits for the replica."""
        row = self.primary.execute("SHOW STATUS LIKE 'Rpl_semi_sync_master_status'")
        clients = self.primary.execute(
            "SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'"
        )
        return row["Value"] == "ON" and clients["Value"] == "1"

    def catch_up(self) -> None:
        """Wait until the replica has applied what it has received."""

        received: str | None = None
        if self.primary.is_running:
            row = self.primary.execute("SELECT @@GLOBAL.gtid_binlog_pos AS position")
            received = str(row["position"])

        def is_done() -> bool:
            row = self.replica.execute("SHOW SLAVE STATUS")
            if received not in (None, row["Gtid_IO_Pos"]):
                return False
            assert row["Last_SQL_Error"] == ""
            return str(row["Slave_SQL_Running_State"]).startswith("Slave has read all")

        eventually(is_done, "the replica has applied all", 30)

    def promote(self) -> None:
        """Make the replica the primary, once it has applied what it has received."""
        self.replica.execute("STOP SLAVE IO_THREAD")
        self.catch_up()
        self.replica.execute(
            "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = OFF"
        )

    @contextmanager
    def lagging(self) -> Iterator[None]:
        """Let the replica apply nothing in a `with` block."""
        self.replica.execute("STOP SLAVE SQL_THREAD")
        try:
            yield
        finally:
            self.replica.execute("START SLAVE SQL_THREAD")
