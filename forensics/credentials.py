"""Content Credentials (C2PA) of a file, read and validated by c2pa-python where it is installed.

The library parses a stranger's bytes in native code and would fetch manifests from the network: it
runs in a process of its own, without network where the kernel grants that, with limits, and with
fetching switched off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any, cast

from forensics.errors import MediaError
from forensics.findings import Credentials
from forensics.video import Cancellation
from forensics.video.child import leave_network, limit, package_home
from forensics.video.isolation import BOOTSTRAP, child_environment, open_medium
from forensics.video.sniff import HEAD_BYTES, sniff

_WALL_S, _CPU_S, _MEMORY_MB = 60.0, 60.0, 4096
_MOST_CODES, _LONGEST = 100, 500  # of what a hostile manifest may hold
# What the library reads, by our name of a container.
_FORMATS = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "avi": "video/avi",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
}
_SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}


def read_credentials(path: Path, cancellation: Cancellation | None = None) -> Credentials:
    """What Content Credentials `path` carries and whether they hold; never raises for the file.

    Raises ScanCancelled once another thread calls `cancellation.cancel()`.
    """
    cancellation = cancellation or Cancellation()
    if util.find_spec("c2pa") is None:
        return not_examined(
            "c2pa-python is not installed (pip install 'deepfake[credentials]'), so Content "
            "Credentials were not looked for."
        )
    try:
        medium = open_medium(path)
    except MediaError as error:
        return not_examined(f"The file {error}.")
    more = [entry for entry in sys.path if entry.endswith("-packages")]
    argument = json.dumps([medium, None, package_home(), more])
    bootstrap = BOOTSTRAP.replace("forensics.video.child", "forensics.credentials")
    with ExitStack() as ends:
        ends.callback(os.close, medium)
        child = ends.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-c", bootstrap, argument],
                pass_fds=[medium],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                cwd="/",
            )
        )
        ends.callback(child.kill)  # before it is waited for, whatever happens here
        cancellation.attach(_Reader(child))
        try:
            said, _ = child.communicate(timeout=_WALL_S)
        except subprocess.TimeoutExpired:
            return _unreadable(f"Reading Content Credentials took longer than {_WALL_S:g} s.")
    cancellation.check()  # then it is the child's end that was asked for
    try:
        answer: Any = json.loads(said)
        return _from_json(answer)
    except (ValueError, KeyError, TypeError):
        code = child.returncode
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return _unreadable(f"c2pa-python crashed over this file ({how}).")


@dataclass(frozen=True, slots=True)
class _Reader:
    """The child, as a cancellation ends it."""

    child: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.child.kill()


def not_examined(detail: str) -> Credentials:
    """Nothing was looked at, and why."""
    return Credentials(state="not_examined", detail=detail)


def _unreadable(detail: str) -> Credentials:
    return Credentials(state="unreadable", detail=detail)


def _from_json(answer: Any) -> Credentials:
    fields: dict[str, Any] = {
        **answer,
        "actions": tuple(str(action) for action in answer["actions"]),
        "codes": tuple((str(a), str(b), str(c)) for a, b, c in answer["codes"]),
    }
    return Credentials(**fields)


def main(medium: int, _: object) -> int:
    """The child: look into descriptor `medium`, write the answer to stdout."""
    leave_network()  # before the library starts threads
    limit(_MEMORY_MB, _CPU_S)
    sys.stdout.write(json.dumps(_look(medium)))
    sys.stdout.flush()
    return 0


def _look(medium: int) -> dict[str, Any]:
    c2pa: Any = import_module("c2pa")  # partly without types

    with open(medium, "rb") as file:
        library = f"c2pa-python {metadata.version('c2pa-python')}, c2pa-rs {c2pa.sdk_version()}"
        try:
            name = sniff(file.read(HEAD_BYTES)).name
        except MediaError as error:
            return _answer("not_examined", f"Content Credentials were not looked for: {error}.")
        if name not in _FORMATS:
            return _answer(
                "not_examined", f"c2pa-python does not look into {name} files.", library=library
            )
        file.seek(0)
        try:
            settings = c2pa.Settings.from_dict(_SETTINGS)
            with c2pa.Context(settings=settings) as context:
                reader = c2pa.Reader.try_create(_FORMATS[name], file, context=context)
                if reader is None:
                    return _answer(
                        "absent",
                        "The file carries no Content Credentials. Most files do not: it says "
                        "nothing for or against it.",
                        library=library,
                    )
                with reader:
                    return _read(reader, library)
        except c2pa.C2paError as error:
            # The library has a class for this, and uses its general one.
            if "must fetch remote manifest" in str(error):
                where = "The credentials lie on a server and were not fetched: nothing here opens"
                return _answer("unreadable", f"{where} a connection.", library)
            return _answer(
                "unreadable", f"c2pa-python refuses the manifest: {error}"[:_LONGEST], library
            )


def _read(reader: Any, library: str) -> dict[str, Any]:
    state = str(reader.get_validation_state() or "").lower()
    results = cast("dict[str, Any]", reader.get_validation_results() or {})
    found = cast("dict[str, list[dict[str, Any]]]", results.get("activeManifest") or {})
    codes = [
        [outcome, str(entry.get("code", ""))[:_LONGEST], str(entry.get("explanation", ""))]
        for outcome in ("failure", "informational", "success")
        for entry in found.get(outcome, [])
    ]
    manifest = cast("dict[str, Any]", reader.get_active_manifest() or {})
    signature = cast("dict[str, Any]", manifest.get("signature_info") or {})
    details = {
        "trusted": "Intact, and signed by somebody on the library's list of trusted signers.",
        "valid": "Intact since it was signed, but the signer is on no list: anybody may have "
        "signed it.",
        "invalid": "The credentials do not hold: the file or its manifest was changed after it was "
        "signed, or the signature is wrong.",
    }
    if state not in details:
        return _answer("unreadable", f"c2pa-python gives no verdict ({state}).", library)
    return _answer(state, details[state], library) | {
        "generator": _short(manifest.get("claim_generator") or _generators(manifest)),
        "signer": _short(signature.get("common_name") or signature.get("issuer")),
        "signed_at": _short(signature.get("time")),
        "actions": _actions(manifest),
        "codes": [[a, b, c[:_LONGEST]] for a, b, c in codes[:_MOST_CODES]],
    }


def _generators(manifest: dict[str, Any]) -> str | None:
    infos: list[dict[str, Any]] = manifest.get("claim_generator_info") or []
    named = [f"{info.get('name', '')} {info.get('version', '')}".strip() for info in infos]
    return ", ".join(named) or None


def _actions(manifest: dict[str, Any]) -> list[str]:
    """What the makers say was done: action, and the kind of source where one is named."""
    said: list[str] = []
    assertions: list[dict[str, Any]] = manifest.get("assertions") or []
    for assertion in assertions:
        if not str(assertion.get("label", "")).startswith("c2pa.actions"):
            continue
        data: dict[str, Any] = assertion.get("data") or {}
        actions: list[dict[str, Any]] = data.get("actions") or []
        for action in actions:
            source = str(action.get("digitalSourceType", "")).rpartition("/")[2]
            said.append(f"{action.get('action')}{f' ({source})' if source else ''}"[:_LONGEST])
    return said[:_MOST_CODES]


def _short(value: object) -> str | None:
    return None if value is None else str(value)[:_LONGEST]


def _answer(state: str, detail: str, library: str | None = None) -> dict[str, Any]:
    return {
        "state": state,
        "detail": detail,
        "library": library,
        "generator": None,
        "signer": None,
        "signed_at": None,
        "actions": [],
        "codes": [],
    }
