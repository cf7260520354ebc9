"""`deepfake doctor`: versions, devices, decoders, weights, and a timed self-test."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forensics import Scanner, load_checkpoint
from forensics.config import Limits
from forensics.report import printable
from forensics.report.facts import software_versions
from forensics.structures import Face

from .terminal import ERROR, emit

DOCTOR_SCHEMA = "deepfake-doctor/1"
_DECODERS = ("pyav", "decord")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One checked thing: `ok` is None for a fact that cannot be wrong."""

    topic: str
    name: str
    ok: bool | None
    detail: str


def run(*, as_json: bool) -> int:
    """Check everything, show it; the result is the exit status."""
    findings = [*_versions(), *_devices()]
    with tempfile.TemporaryDirectory(prefix="deepfake-doctor-") as folder:
        clip = Path(folder) / "clip.mp4"
        made = _checked("decoder", "test clip", lambda: _draw_clip(clip))
        findings.append(made)
        if made.ok:
            findings += [
                _checked("decoder", name, lambda n=name: _decode(clip, n)) for name in _DECODERS
            ]
        findings += _weights()
        if made.ok:
            findings.append(_checked("self-test", "scan", lambda: _self_test(clip)))
    emit(_as_json(findings) if as_json else _as_table(findings))
    return ERROR if any(finding.ok is False for finding in findings) else 0


def _versions() -> list[Finding]:
    facts = dict(software_versions())
    try:
        import av

        facts["ffmpeg in av"] = str(av.ffmpeg_version_info)
    except (ImportError, AttributeError) as error:
        facts["ffmpeg in av"] = f"unknown: {error}"
    return [Finding(topic="version", name=name, ok=None, detail=facts[name]) for name in facts]


def _devices() -> list[Finding]:
    def describe() -> str:
        import torch

        from forensics.runtime import autocast_dtype, choose_device

        device = choose_device("auto")
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        dtype = str(autocast_dtype(device)).removeprefix("torch.")
        return (
            f"{name}, at best {dtype}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
        )

    return [_checked("device", "auto", describe)]


def _weights() -> list[Finding]:
    def verify(name: str) -> str:
        checkpoint = load_checkpoint(name)  # verifies the weights, by the card
        card = checkpoint.card
        return f"{card.name} {card.version}, file sha256 {checkpoint.sha256}, weights verified"

    from forensics.checkpoint import shipped

    names = list(shipped())
    if "default" not in names:
        missing = "default.safetensors is missing from forensics/weights; reinstall the package"
        return [Finding(topic="weights", name="default", ok=False, detail=missing)]
    return [_checked("weights", name, lambda n=name: verify(n)) for name in names]


def _draw_clip(path: Path) -> str:
    """A short clip of moving squares: no face, so that the answer is known."""
    av: Any = import_module("av")  # its stubs leave these calls untyped
    side, count = 160, 24
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for index in range(count):
            pixels = np.full((side, side, 3), 96, dtype=np.uint8)
            pixels[40:80, index * 4 : index * 4 + 40] = (220, 60, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return f"{count} frames of {side} x {side}, MPEG-4"


def _decode(clip: Path, decoder: str) -> str:
    from forensics.video import open_video

    with open_video(clip, decoder=decoder, limits=Limits()) as session:
        info = session.info
        frames = list(session.frames(np.linspace(info.first_s, info.last_s, 4)))
    if len(frames) != 4:
        raise ValueError(f"{len(frames)} of 4 frames came back")
    # Red dominates where the square is, on every frame: catches swapped channels and black frames.
    reddest = [int((f.pixels[..., 0].astype(int) - f.pixels[..., 2]).max()) for f in frames]
    if min(reddest) < 100:
        raise ValueError("the drawn square did not come back in its colour")
    return f"4 frames read from {info.container}"


class _WholePicture:
    """A face detector that calls the middle of every frame a face, so that the network runs."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        faces: list[list[Face]] = []
        for frame in frames:
            height, width = frame.shape[:2]
            box = np.array([width / 4, height / 4, width * 3 / 4, height * 3 / 4], np.float32)
            points = np.tile(box[:2], (5, 1))
            faces.append([Face(xyxy=box, landmarks=points, probability=1.0)])
        return faces


def _self_test(clip: Path) -> str:
    """The whole river twice: with the real face finder, and with faces claimed to be there."""
    with Scanner() as scanner:
        empty = scanner.scan(clip)
    if empty.verdict.label != "no_face":
        raise ValueError(f"a clip without faces ended as {empty.verdict.label}")
    with Scanner(face_detector=_WholePicture()) as scanner:
        full = scanner.scan(clip)
    if full.verdict.abstained:
        raise ValueError(f"the network was not reached: {full.verdict.label}")
    count = sum(len(person.score.logits) for person in full.verdict.people)
    score_s = full.timings_s["score"]
    return (
        f"no face in a clip without one ({empty.seconds:.2f} s with loading); "
        f"{count} crops judged in {score_s:.2f} s"
    )


def _checked(topic: str, name: str, check: Callable[[], str]) -> Finding:
    """Run one check; whatever it raises is the finding."""
    try:
        return Finding(topic=topic, name=name, ok=True, detail=check())
    except Exception as error:
        text = " ".join(str(error).split())
        return Finding(topic=topic, name=name, ok=False, detail=f"{type(error).__name__}: {text}")


def _as_json(findings: list[Finding]) -> str:
    rows = [{"topic": f.topic, "name": f.name, "ok": f.ok, "detail": f.detail} for f in findings]
    ok = all(finding.ok is not False for finding in findings)
    return json.dumps({"schema": DOCTOR_SCHEMA, "ok": ok, "findings": rows}, indent=2) + "\n"


def _as_table(findings: list[Finding]) -> str:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    words = {True: ("ok", "green"), False: ("FAILED", "bold red"), None: ("", "")}
    for finding in findings:
        word, style = words[finding.ok]
        detail = Text(printable(finding.detail))
        table.add_row(finding.topic, finding.name, Text(word, style=style), detail)
    console = Console(highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
