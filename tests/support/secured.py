"""Servers that speak TLS only, and only with clients that show a certificate."""

from __future__ import annotations

import shutil
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import MySQLdb

from messaging.lab.processes import free_port
from messaging.lab.proxy import Proxy
from messaging.lab.servers import MariaDB, MongoDB, RabbitMQ

from .certificates import Authority

#: The address of all servers, and the user whom the clients' certificate names.
HOST, CLIENT = "127.0.0.1", "guest"


class Secured:
    """RabbitMQ, MariaDB and MongoDB, whose certificate can be replaced."""

    def __init__(self, directory: Path) -> None:
        (directory / "foreign").mkdir(parents=True)
        self.directory = directory
        self.authority = Authority(directory)
        self.foreign = Authority(directory / "foreign")
        self.certificates = {
            "right": self.authority.issue(HOST),
            "of another host": self.authority.issue("other.example.com"),
            "expired": self.authority.issue("127.0.0.1", days=-1),
        }
