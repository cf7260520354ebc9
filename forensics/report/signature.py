"""Ed25519 signatures of reports (RFC 8032) over their canonical bytes (RFC 8785).

A signature says that whoever holds the key has seen exactly this report. It does not say that the
report is right, nor, without a key from elsewhere, whose signature it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from forensics.errors import ConfigError
from forensics.report.custody import canonical

FIELD = "signature"
ALGORITHM = "Ed25519"
_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


class Signer:
    """Signs documents with one private key. Raises ConfigError where the file holds none."""

    def __init__(self, key_file: Path) -> None:
        serialization = _library("serialization")
        data = _read(key_file)
        try:
            key: Any = serialization.load_pem_private_key(data, password=None)
        except TypeError as error:  # what cryptography says of a key behind a passphrase
            raise ConfigError(
                f"{key_file}: the key is encrypted; decrypt it with: openssl pkey -in OLD -out NEW"
            ) from error
        except Exception as error:  # ValueError, UnsupportedAlgorithm and its own kinds
            raise ConfigError(f"{key_file}: not a private key in PEM; {_MAKE}") from error
        if not hasattr(key, "sign") or not _is_ed25519(key.public_key()):
            raise ConfigError(f"{key_file}: not an Ed25519 key; {_MAKE}")
        self._key = key
        self.public_key: str = key.public_key().public_bytes_raw().hex()

    def sign(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document with its signature; one that it had before is replaced."""
        value = self._key.sign(signed_bytes(document))
        signature = {"algorithm": ALGORITHM, "public_key": self.public_key, "value": value.hex()}
        return {**document, FIELD: signature}


def signed_bytes(document: Mapping[str, Any]) -> bytes:
    """What is signed: the canonical bytes of everything but the signature."""
    return canonical({key: value for key, value in document.items() if key != FIELD})


def holds(document: Mapping[str, Any]) -> bool:
    """Whether the document's own signature fits its content and the key it names."""
    ed25519 = _library("asymmetric.ed25519")
    signature = document[FIELD]
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
        key.verify(bytes.fromhex(signature["value"]), signed_bytes(document))
    except (import_module("cryptography.exceptions").InvalidSignature, ValueError):
        return False
    return True


def load_public_key(key_file: Path) -> str:
    """The 32 bytes of a public key in PEM, as hexadecimal. Raises ConfigError for anything else."""
    serialization = _library("serialization")
    try:
        key: Any = serialization.load_pem_public_key(_read(key_file))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{key_file}: not a public key in PEM; get it with: "
            "openssl pkey -in key.pem -pubout -out key.pub"
        ) from error
    if not _is_ed25519(key):
        raise ConfigError(f"{key_file}: not an Ed25519 key")
    return key.public_bytes_raw().hex()


def _is_ed25519(key: Any) -> bool:
    return isinstance(key, _library("asymmetric.ed25519").Ed25519PublicKey)


def _read(key_file: Path) -> bytes:
    try:
        with key_file.open("rb") as file:
            return file.read(2**16)
    except OSError as error:
        raise ConfigError(f"{key_file}: the key cannot be read: {error.strerror}") from error


def _library(name: str) -> Any:
    try:
        return import_module(f"cryptography.hazmat.primitives.{name}")
    except ImportError as error:
        raise ConfigError("cryptography is not installed: pip install 'deepfake[sign]'") from error
