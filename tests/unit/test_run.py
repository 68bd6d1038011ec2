"""How `make run` chooses its port and hides secrets."""

import socket

import pytest

from project import run


@pytest.mark.parametrize("port", ["none", "0", "65536", "²"])
def test_an_invalid_port_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)

    with pytest.raises(run.Failed, match="not a port"):
        run.choose_port()


def test_the_next_free_port_is_used_when_none_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    first = run.choose_port()

    with socket.create_server(("127.0.0.1", first)):
        assert run.choose_port() > first


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:s3cret@host:5672/", "amqp://host:5672/"),
        # A password may hold any of these, though it should be quoted.
        ("mysql://root:a@b?c/d@host/messaging", "mysql://host/messaging"),
        # Options may hold secrets too.
        ("mongodb://host/reports?tlsKeyPassword=x", "mongodb://host/reports"),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    assert run.without_secrets(url) == shown
