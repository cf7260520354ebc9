"""Content Credentials: read, validated and told apart, with credentials signed in the test."""

from __future__ import annotations

import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from makers import write_video

from forensics import credentials
from forensics.credentials import read_credentials
from forensics.errors import ScanCancelled
from forensics.video import Cancellation

c2pa: Any = pytest.importorskip("c2pa", reason="c2pa-python is not installed")
pytest.importorskip("cryptography", reason="cryptography makes the test's certificates")


def _certificates() -> tuple[bytes, bytes]:
    """A chain (leaf, root) in PEM and the leaf's key, made for this test."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.timezone.utc)

    def build(name: str, issuer: Any, key: Any, issuer_key: Any, *, is_root: bool) -> Any:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, name),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            ]
        )
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
            )
            .add_extension(
                x509.KeyUsage(not is_root, *[False] * 4, is_root, is_root, False, False),
                critical=True,
            )
        )
        if not is_root:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            made = made.add_extension(usage, critical=False)
        return made.sign(issuer_key, hashes.SHA256())

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = build("Test Root", None, root_key, root_key, is_root=True)
    leaf = build("Test Signer", root, key, root_key, is_root=False)
    pem = serialization.Encoding.PEM
    chain = leaf.public_bytes(pem) + root.public_bytes(pem)
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return chain, private


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("c2pa") / "plain.mp4", frames=10)


def sign(clip: Path, target: Path, remote: str | None = None) -> Path:
    """A copy of `clip` with credentials inside, or at the address `remote`."""
    chain, key = _certificates()
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, None))
    source_type = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    actions = [{"action": "c2pa.created", "digitalSourceType": source_type}]
    manifest = {
        "claim_generator_info": [{"name": "<b>maker</b>", "version": "1"}],
        "format": "video/mp4",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}],
    }
    with (
        c2pa.Builder(json.dumps(manifest)) as builder,
        clip.open("rb") as source,
        target.open("w+b") as destination,
    ):
        if remote is not None:
            builder.set_remote_url(remote)
            builder.set_no_embed()
        builder.sign(signer, "video/mp4", source, destination)
    return target


@pytest.fixture(scope="module")
def signed(clip: Path) -> Path:
    return sign(clip, clip.with_name("signed.mp4"))


def test_a_file_without_credentials_says_so_and_blames_nobody(clip: Path) -> None:
    found = read_credentials(clip)
    assert (found.state, found.codes) == ("absent", ())
    assert "nothing for or against" in found.detail


def test_intact_credentials_of_an_unknown_signer_are_valid_but_not_trusted(signed: Path) -> None:
    found = read_credentials(signed)
    assert found.state == "valid"
    assert found.signer == "Test Signer"
    assert found.generator is not None
    assert "maker" in found.generator
    assert found.actions == ("c2pa.created (trainedAlgorithmicMedia)",)
    outcomes = {code: outcome for outcome, code, _ in found.codes}
    assert outcomes["signingCredential.untrusted"] == "failure"
    assert outcomes["assertion.bmffHash.match"] == "success"


def test_a_file_changed_after_signing_is_invalid_with_the_librarys_own_code(
    signed: Path, tmp_path: Path
) -> None:
    data = bytearray(signed.read_bytes())
    data[data.rindex(b"mdat") + 200] ^= 0xFF
    changed = tmp_path / "changed.mp4"
    changed.write_bytes(bytes(data))
    found = read_credentials(changed)
    assert found.state == "invalid"
    assert ("failure", "assertion.bmffHash.mismatch") in {code[:2] for code in found.codes}


def test_a_manifest_on_a_server_is_not_fetched(clip: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        remote = sign(clip, tmp_path / "remote.mp4", address)
        assert address.encode() in remote.read_bytes()
        with remote.open("rb") as file:
            # In this process, where no missing network hides a request.
            found = credentials._look(os.dup(file.fileno()))  # pyright: ignore[reportPrivateUsage]
        server.shutdown()
    assert asked == []
    assert found["state"] == "unreadable"
    assert read_credentials(remote).detail == (
        "The credentials lie on a server and were not fetched: nothing here opens a connection."
    )


@pytest.mark.parametrize("make", [lambda data: data[: len(data) // 2], lambda data: data[:40]])
def test_a_broken_file_ends_in_a_named_state(
    signed: Path, tmp_path: Path, make: Callable[[bytes], bytes]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(make(signed.read_bytes()))
    assert read_credentials(broken).state in ("unreadable", "invalid", "absent")


def test_what_the_library_does_not_read_is_not_examined(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("nothing")
    found = read_credentials(text)
    assert found.state == "not_examined"
    assert found.detail == ("Content Credentials were not looked for: a text file, not a medium.")
    assert read_credentials(tmp_path / "absent.mp4").state == "not_examined"


def test_without_the_library_the_answer_says_how_to_get_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials.util, "find_spec", lambda _: None)
    found = read_credentials(clip)
    assert found.state == "not_examined"
    assert "pip install" in found.detail


def test_a_child_that_dies_is_an_answer(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "BOOTSTRAP", "import os; os.kill(os.getpid(), 11)")
    found = read_credentials(clip)
    assert (found.state, "signal 11" in found.detail) == ("unreadable", True)
    assert sys.modules.get("c2pa") is not None  # only by this test's own import


def test_a_child_that_hangs_is_ended_by_a_cancellation(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "BOOTSTRAP", "import time; time.sleep(60)")
    cancellation = Cancellation()
    threading.Timer(0.3, cancellation.cancel).start()
    start = time.monotonic()
    with pytest.raises(ScanCancelled):
        read_credentials(clip, cancellation)
    assert time.monotonic() - start < 5
