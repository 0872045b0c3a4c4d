"""Credentials that could never work, told at the start.

The client looks at certificates and mechanisms only when a broker has answered. What it finds
wrong then looks like a broker that does not answer, and is tried for ever; an encrypted key
without its password asks the terminal for one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from penstock.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from penstock.settings import Settings

#: What a mechanism needs that does not come with Penstock.
_NEEDS: Final = {"GSSAPI": "gssapi", "AWS_MSK_IAM": "botocore"}


def check(settings: Settings) -> None:
    """Read what the client will read.

    Raises:
        ConfigError: naming everything that is wrong, never what it holds.
    """
    problems = [*_mechanism(settings), *_password(settings), *_certificates(settings)]
    if problems:
        raise ConfigError("\n".join(problems))


def _mechanism(settings: Settings) -> Iterator[str]:
    mechanism = settings.sasl_mechanism
    if mechanism == "AWS_MSK_IAM" and settings.security_protocol != "SASL_SSL":
        yield "PENSTOCK_SASL_MECHANISM=AWS_MSK_IAM needs PENSTOCK_SECURITY_PROTOCOL=SASL_SSL"
    package = _NEEDS.get(mechanism or "")
    if package is not None and importlib.util.find_spec(package) is None:
        yield (
            f"PENSTOCK_SASL_MECHANISM={mechanism} needs the package {package}, which is not "
            f"installed: pip install {package}"
        )


def _password(settings: Settings) -> Iterator[str]:
    if settings.sasl_password_file is None:
        return
    name = f"PENSTOCK_SASL_PASSWORD_FILE={settings.sasl_password_file}"
    try:
        if not settings.sasl_secret():
            yield f"{name}: it is empty"
    except OSError as error:
        yield f"{name}: cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        yield f"{name}: it is not text"


def _certificates(settings: Settings) -> Iterator[str]:
    if not settings.security_protocol.endswith("SSL"):
        return
    if settings.ssl_cafile is None and settings.ssl_certfile is None:
        return
    import ssl  # noqa: PLC0415 (for those who name certificates)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ssl_cafile is not None:
        yield from _authorities(context, settings.ssl_cafile)
    if settings.ssl_certfile is not None:
        yield from _own(context, settings)


def _authorities(context: ssl.SSLContext, file: Path) -> Iterator[str]:
    try:
        context.load_verify_locations(file)
    except OSError:  # ssl.SSLError is one
        yield f"PENSTOCK_SSL_CAFILE={file}: it holds no certificates in PEM"


def _own(context: ssl.SSLContext, settings: Settings) -> Iterator[str]:
    secret = settings.ssl_password
    # Never None: OpenSSL would ask on the terminal.
    password = secret.get_secret_value() if secret is not None else ""
    try:
        context.load_cert_chain(
            settings.ssl_certfile or "", settings.ssl_keyfile, password=lambda: password
        )
    except (OSError, ValueError):  # ValueError: a password that is too long
        yield (
            f"PENSTOCK_SSL_CERTFILE={settings.ssl_certfile} and "
            f"PENSTOCK_SSL_KEYFILE={settings.ssl_keyfile}: they are no certificate and its key in "
            "PEM, or PENSTOCK_SSL_PASSWORD is not the key's"
        )
