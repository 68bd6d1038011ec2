"""
How connections to the broker are secured.

An `amqps://` address has options that RabbitMQ's own clients know, too:

    amqps://user:password@host/?cacertfile=ca.pem&certfile=own.pem&keyfile=own.key

The broker must show a certificate for this host, signed by an authority of
`cacertfile` or, without it, one that the system trusts. Nothing turns this off.
"""

from __future__ import annotations

import ssl
from urllib.parse import parse_qsl, urlencode, urlsplit

import pika
from pika.credentials import ExternalCredentials

#: Options that pika itself does not know.
OURS = ("cacertfile", "certfile", "keyfile", "auth_mechanism")


def parameters_of(url: str) -> pika.URLParameters:
    """
    Return the parameters of connections to an address.

    Raises `OSError` for a certificate that cannot be read, and `ValueError` for an
    unknown option.
    """
    parts = urlsplit(url)
    options = parse_qsl(parts.query)
    given = {key: value for key, value in options if key in OURS}
    others = [(key, value) for key, value in options if key not in OURS]
    if "ssl_options" in dict(others):
        raise ValueError("ssl_options may check nothing: use cacertfile in its place")
    result = pika.URLParameters(parts._replace(query=urlencode(others)).geturl())
    if given:
        _secure(result, **given)
    return result


def _secure(
    result: pika.URLParameters,
    cacertfile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    auth_mechanism: str = "plain",
) -> None:
    if result.ssl_options is None:
        raise ValueError("options of TLS need an address with amqps://")
    try:
        context = ssl.create_default_context(cafile=cacertfile)
        if certfile:
            context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        raise OSError(f"cacertfile, certfile or keyfile: {error}") from error
    result.ssl_options = pika.SSLOptions(context, result.host)
    if auth_mechanism.lower() == "external":
        # The broker takes the user's name from the certificate.
        result.credentials = ExternalCredentials()
