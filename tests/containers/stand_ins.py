"""Images that stand in for those of a registry, under the names that the files use."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import BASE

from .engine import STORE, Podman, run

FOLDER = Path(__file__).with_name("stand_ins")
MIRROR = "http://deb.debian.org/debian"
#: What pip trusts in the images: whom this machine trusts.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def make_stand_ins(podman: Podman) -> list[str]:
    """Make an image for each name in the Dockerfile and the compose files."""
    paths = [BASE / "Dockerfile", BASE / "compose.yaml", BASE / "compose.prod.yaml"]
    text = "".join(path.read_text() for path in paths)
    kinds = "|".join(path.name for path in FOLDER.iterdir())
    names = sorted(set(re.findall(rf"(?:image:|FROM) ((?:{kinds}):\S+)", text)))
    if pinned := [name for name in names if "@" in name]:
        sys.exit(f"What stands in for an image has another digest: {pinned[0]}")
    for name in names:
        folder = FOLDER / name.partition(":")[0]
        [suite] = re.findall(
            r"^FROM localhost/debian:(\w+)", (folder / "Dockerfile").read_text(), re.M
        )
        make_debian(podman, suite)
        podman("build", "--quiet", "--tag", name, str(folder))
    return names


def make_debian(podman: Podman, suite: str) -> None:
    """Make an image of Debian's base system with debootstrap, unless it exists."""
    image = f"localhost/debian:{suite}"
    if podman.answers("image", "exists", image):
        return
    root = STORE / suite
    try:
        run("debootstrap", "--variant=minbase", suite, str(root), MIRROR)
        if AUTHORITIES.exists():
            shutil.copy(AUTHORITIES, root / "etc/authorities.crt")
            pip = "[global]\ncert = /etc/authorities.crt\n"
            (root / "etc/pip.conf").write_text(pip)
        # A proxy, a mirror that is old: what apt needs on this machine.
        (root / "etc/apt/apt.conf.d/90machine").write_text(
            run("apt-config", "dump", "Acquire")
        )
        # No package starts its server.
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        pack = ("tar", "-C", str(root), "--exclude=./proc/*", "--exclude=./sys/*")
        pack += ("-cf", f"{root}.tar", ".")
        run(*pack)
        podman("import", "--quiet", f"{root}.tar", image)
    finally:
        subprocess.run(("rm", "-rf", str(root), f"{root}.tar"), check=True)
