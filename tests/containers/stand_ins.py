"""
Images that stand in for those of a registry, under the names that the files use.

Each is Debian's base system with the packages of one server, and an entry point that
does what that of the true image does, as far as compose.prod.yaml asks for it. Debian's
packages are what is tried: other versions, and another entry point, than the true ones.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support import BASE

MIRROR = "http://deb.debian.org/debian"


@dataclass(frozen=True)
class StandIn:
    """An image to make: its suite of Debian, packages, and commands in it."""

    suite: str
    packages: tuple[str, ...]
    commands: str
    entrypoint: str = ""


PYTHON = StandIn(
    "bookworm",
    ("python3-dev", "python3-venv", "python3-pip", "ca-certificates"),
    "ln -s python3 /usr/bin/python",
)
NGINX = StandIn(
    "bookworm",
    ("nginx-light",),
    "rm -rf /var/lib/nginx; ln -s /var/cache/nginx /var/lib/nginx; mkdir -p /var/cache/nginx;"
    "ln -sf /dev/stderr /var/log/nginx/error.log; ln -sf /dev/stdout /var/log/nginx/access.log",
)
RABBITMQ = StandIn(
    "trixie",
    ("rabbitmq-server",),
    "mkdir -p /etc/rabbitmq/conf.d",
    """#!/bin/sh
chown -R rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
export HOME=/var/lib/rabbitmq RABBITMQ_LOGS=- RUNNING_UNDER_SYSTEMD=1
exec setpriv --reuid rabbitmq --regid rabbitmq --init-groups \\
    /usr/lib/rabbitmq/bin/rabbitmq-server
""",
)
MYSQL = StandIn(
    "sid",
    ("mysql-server",),
    "rm -rf /var/lib/mysql/*",
    """#!/bin/sh
set -e
chown mysql /var/lib/mysql /run/mysqld
if [ ! -d /var/lib/mysql/mysql ]; then
    mysqld --no-defaults --user=mysql --datadir=/var/lib/mysql --initialize-insecure
    cat >/tmp/init.sql <<END
CREATE DATABASE $MYSQL_DATABASE;
CREATE USER $MYSQL_USER IDENTIFIED BY '$(cat $MYSQL_PASSWORD_FILE)';
GRANT ALL ON $MYSQL_DATABASE.* TO $MYSQL_USER;
ALTER USER root@localhost IDENTIFIED BY '$(cat $MYSQL_ROOT_PASSWORD_FILE)';
END
    chmod 644 /tmp/init.sql
    set -- "$@" --init-file=/tmp/init.sql
fi
exec mysqld --no-defaults --user=mysql --datadir=/var/lib/mysql --bind-address=0.0.0.0 \\
    --socket=/run/mysqld/mysqld.sock --mysqlx=OFF "$@"
""",
)


def images() -> dict[str, StandIn]:
    """Return the images that the files name, and what stands in for each."""
    text = (BASE / "compose.prod.yaml").read_text() + (BASE / "Dockerfile").read_text()
    kinds = {"python": PYTHON, "nginx": NGINX, "rabbitmq": RABBITMQ, "mysql": MYSQL}
    names = set(
        re.findall(r"(?:image:|FROM) ((?:python|nginx|rabbitmq|mysql):\S+)", text)
    )
    return {name: kinds[name.partition(":")[0]] for name in sorted(names)}


def make(name: str, kind: StandIn, podman: list[str]) -> None:
    """Make an image with debootstrap, unless it exists."""
    if subprocess.run([*podman, "image", "exists", name]).returncode == 0:
        return
    folder = Path(tempfile.mkdtemp(prefix="stand-in-"))
    try:
        run("debootstrap", "--variant=minbase", kind.suite, str(folder), MIRROR)
        for one in ("pip.conf", "ssl/certs/ca-certificates.crt"):
            source, target = Path("/etc", one), folder / "etc" / one
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        for one in Path("/etc/apt/apt.conf.d").glob("*"):
            if one.name.startswith("99"):
                shutil.copy(one, folder / "etc/apt/apt.conf.d")
        (folder / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (folder / "usr/sbin/policy-rc.d").chmod(0o755)
        inside = ["chroot", str(folder), "env", "DEBIAN_FRONTEND=noninteractive"]
        run(
            *inside,
            "apt-get",
            "install",
            "-qy",
            "--no-install-recommends",
            *kind.packages,
        )
        run(*inside, "sh", "-c", kind.commands)
        changes = []
        if kind.entrypoint:
            path = folder / "usr/local/bin/docker-entrypoint.sh"
            path.write_text(kind.entrypoint)
            path.chmod(0o755)
            changes = ["--change", 'ENTRYPOINT ["docker-entrypoint.sh"]']
        run("chroot", str(folder), "apt-get", "clean")
        tar = subprocess.Popen(
            [
                "tar",
                "-C",
                str(folder),
                "-c",
                "--exclude=./proc/*",
                "--exclude=./sys/*",
                ".",
            ],
            stdout=subprocess.PIPE,
        )
        subprocess.run(
            [*podman, "import", "-q", *changes, "-", name], stdin=tar.stdout, check=True
        )
    finally:
        for one in ("proc", "sys"):
            subprocess.run(["umount", str(folder / one)], stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def run(*command: str) -> None:
    """Run a command, whose output is shown only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout.decode()[-3000:]}")
