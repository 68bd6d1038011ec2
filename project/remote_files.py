"""Files in a bucket that several hosts share, for `STORAGE_URL`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.exceptions import ImproperlyConfigured
from storages.backends.s3 import S3Storage

#: Options of the address, all of S3Storage.
OPTIONS = {"endpoint_url", "region_name", "addressing_style"}
#: Seconds for a connection and an answer; and attempts at a request.
CLIENT = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2})


def storage_of(url: str) -> dict[str, Any]:
    """
    Return the entry of STORAGES for `s3://KEY:SECRET@bucket?endpoint_url=https://host`.

    Without key and secret, those of the machine are found as the AWS SDK does it.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    credentials, _, bucket = parts.netloc.rpartition("@")
    is_known = parts.scheme == "s3" and options.keys() <= OPTIONS
    if not bucket or not is_known or parts.path.strip("/"):
        raise ImproperlyConfigured(
            "STORAGE_URL must be like s3://KEY:SECRET@bucket?endpoint_url=https://host"
            f"; its options are {', '.join(sorted(OPTIONS))}."
        )
    options["bucket_name"] = bucket
    if credentials:
        key, _, secret = credentials.partition(":")
        options |= {"access_key": unquote(key), "secret_key": unquote(secret)}
    return {"BACKEND": f"{__name__}.Storage", "OPTIONS": options}


class Storage(S3Storage):
    """Objects of a bucket; whatever fails is an `OSError`, as with files."""

    def __init__(self, **options: Any) -> None:
        # A name is written again by the next attempt only, which replaces the object.
        super().__init__(
            **{"client_config": CLIENT, "file_overwrite": True, "default_acl": None}
            | options
        )

    def _open(self, name: str, mode: str = "rb") -> Any:
        with os_errors():
            file = super()._open(name, mode)
            if "r" in mode:
                file.file  # noqa: B018 fetched here, where errors can be answered
            return file

    def _save(self, name: str, content: Any) -> str:
        with os_errors():
            return str(super()._save(name, content))

    def delete(self, name: str) -> None:
        with os_errors():
            super().delete(name)

    def exists(self, name: str) -> bool:
        with os_errors():
            return bool(super().exists(name))

    def listdir(self, name: str) -> Any:
        with os_errors():
            return super().listdir(name)


@contextmanager
def os_errors() -> Iterator[None]:
    """Raise `OSError` for what the SDK raises."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"The bucket: {error}") from error
