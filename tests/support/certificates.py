"""A private certification authority, made with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Signs certificates; its own is in `certificate`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=Authority of the tests",
            "-keyout", self._key, "-out", self.certificate,
        )  # fmt: skip

    def issue(self, name: str, days: int = 2) -> tuple[Path, Path]:
        """Return the certificate of a host or address, and its key."""
        start = self._directory / f"{name}.{days}"
        certificate, key, request, extensions = (
            start.with_name(f"{start.name}.{end}")
            for end in ("pem", "key", "csr", "ext")
        )
        kind = "IP" if name[0].isdecimal() else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{name}\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-keyout", key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-days", str(days), "-CAcreateserial", "-in", request,
            "-CA", self.certificate, "-CAkey", self._key,
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
