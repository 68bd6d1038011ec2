"""A private MongoDB, or the embedded server that replaces it, on a Unix socket."""

import importlib.util
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from .processes import find_program
from .server import Server, ServerError

#: Bytes of the longest path of a Unix socket, on every system.
LONGEST_SOCKET = 100


class MongoDB(Server):
    """
    A `mongod` if one is installed, else the embedded nx-27017, which has no passwords.

    So it listens on a Unix socket only, in a folder that is closed to other users.
    """

    port_names = ()

    def url_at(self, address: int | Path) -> str:
        return f"mongodb://{quote_plus(str(address))}/reports"

    @property
    def address(self) -> Path:
        """The socket, in a folder under the temporary one if its path is too long."""
        self._make_directory()
        path = self.directory / "mongodb.sock"
        if len(bytes(path)) <= LONGEST_SOCKET:
            return path
        return self._folder() / path.name

    @property
    def engine(self) -> str:
        """The Django database engine for this server."""
        found = find_program("mongod")
        return "django_mongodb_backend" if found else "messaging.lab.nx_mongodb"

    def launch(self) -> None:
        path = str(self.address)
        if mongod := find_program("mongod"):
            data = self.data / "mongod"
            command = [mongod, "--dbpath", str(data), "--bind_ip", path, "--quiet"]
            command += ["--wiredTigerCacheSizeGB", "0.25"]
        elif importlib.util.find_spec("nx_27017"):
            data = self.data / "nx"
            program = Path(__file__).with_name("nx_mongodb") / "__main__.py"
            # -P: the modules beside it are not the server's.
            command = [sys.executable, "-P", str(program), str(data), path]
        else:
            raise ServerError(
                "Neither mongod nor nx-27017 is installed: pip install nx-27017."
            )
        self.address.unlink(missing_ok=True)
        data.mkdir(parents=True, exist_ok=True)
        self.spawn(command)

    def stop(self) -> None:
        """Terminate the server, and remove a folder under the temporary one."""
        super().stop()
        link = self.directory / "socket"
        if link.is_symlink() and is_private(link.readlink()):
            shutil.rmtree(link.readlink())
            link.unlink()

    def _folder(self) -> Path:
        """Return the folder that the link names; make one if it is not this user's."""
        link = self.directory / "socket"
        with suppress(FileNotFoundError):
            if is_private(link.readlink()):
                return link.readlink()
            link.unlink()
        link.symlink_to(tempfile.mkdtemp(prefix="mongodb-"))
        return link.readlink()

    def _listens(self) -> bool:
        return self.address.exists()

    def ping(self) -> None:
        import pymongo

        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(self.url, serverSelectionTimeoutMS=2000) as client:
            client.admin.command("ping")


def is_private(path: Path) -> bool:
    """Return whether a path is a folder of this user that others cannot enter."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return mine and not found.st_mode & 0o077
