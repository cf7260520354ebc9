"""An annotated copy of a video: boxes, person numbers, the score so far, the verdict; with sound.

Frames come from the decoder's process one by one and go into the encoder one by one. They are those
the scan saw: turned upright, with square pixels, in standard range. Colours: probabilities at or
above the threshold for fake are red, at or below that for real green, others amber.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.config import ScanConfig
from forensics.errors import ConfigError, MediaError
from forensics.findings import Report
from forensics.structures import PersonVerdict, Thresholds
from forensics.verdict import label_of
from forensics.video import open_video
from forensics.video.sound import add_sound, count_sound

# By suffix: FFmpeg's name of the container.
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_TICKS = 90_000  # per second, MPEG's clock: every usual frame rate fits
_COLOURS = {"likely_fake": (214, 48, 36), "likely_real": (34, 148, 68), "uncertain": (214, 150, 0)}
_NOTE = (70, 74, 84)  # behind words that are no judgement
_FONT = cv2.FONT_HERSHEY_DUPLEX
_HELD = 1.5  # a box is shown this many sampling steps away from the nearest look at the face


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One person at one moment: box xyxy in pixels, the frame's probability, that so far."""

    box: NDArray[np.float64]
    probability: float
    so_far: float


def require_target(target: Path, source: Path) -> None:
    """Raise ConfigError where an annotated video of `source` could not be written."""
    if target.suffix.lower() not in CONTAINERS:
        raise ConfigError(
            f"{target}: --overlay writes video; give a name that ends in {', '.join(CONTAINERS)}"
        )
    if target.is_dir() or not target.parent.is_dir():
        raise ConfigError(f"{target}: not a file in an existing folder; check --overlay")
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigError(f"{target}: is the video itself; name another file")


def write_overlay(
    target: Path,
    report: Report,
    config: ScanConfig,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the annotated copy of the file that `report` is about; whole or not at all.

    `on_progress` gets (frames done, frames in all). Raises MediaError where the file cannot be
    decoded again or its sound does not fit the container, ConfigError for the target's suffix.
    """
    source = Path(report.path)
    require_target(target, source)
    container = CONTAINERS[target.suffix.lower()]
    info = report.info
    if info is None:
        raise MediaError(
            f"{source}: nothing to annotate: no frame was decoded", label="undecodable"
        )
    if info.kind == "image":
        raise MediaError(f"{source}: a picture; only videos are annotated", label="unsupported")
    sounds = count_sound(source, container, config.limits)
    people = [Track(person) for person in report.verdict.people]
    # Read back to be joined with sound, Matroska, which stores no decoding times, would lose the
    # first pictures; MP4 stores them.
    made_in = "mp4" if sounds else container
    with _temporary(target) as silent, _temporary(target) as whole:
        with open_video(source, limits=config.limits) as session, _Film(silent, made_in) as film:
            for done, frame in enumerate(session.every_frame(), start=1):
                film.add(annotate(frame.pixels, frame.time_s, report, people), frame.time_s)
                if on_progress is not None:
                    on_progress(done, info.listed_frames)
        made = silent
        if sounds:
            add_sound(source, silent, whole, container, config.limits)
            made = whole
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        made.replace(target)


@contextmanager
def _temporary(target: Path) -> Generator[Path]:
    """An empty file beside `target`, gone afterwards unless it was renamed."""
    path = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield path
    except OSError as error:
        if isinstance(error.filename, str) and Path(error.filename) == path:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        path.unlink(missing_ok=True)


class _Film:
    """An H.264 encoder that takes frames of any size and gives the first one's to all."""

    def __init__(self, path: Path, container: str) -> None:
        import av  # the encoder; what a stranger made is decoded elsewhere

        self._av: Any = av
        self._out: Any = av.open(str(path), "w", format=container)
        self._stream: Any = None
        self._size = (0, 0)
        self._latest = -1

    def __enter__(self) -> _Film:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._stream is not None:
            self._out.mux(self._stream.encode(None))
        self._out.close()

    def add(self, pixels: NDArray[np.uint8], time_s: float) -> None:
        if self._stream is None:
            height, width = pixels.shape[:2]
            self._size = (width + width % 2, height + height % 2)  # 4:2:0 wants even sides
            # Constant quality a viewer cannot tell from the source; speed before size.
            self._stream = self._out.add_stream(
                "libx264", rate=30, options={"crf": "18", "preset": "veryfast"}
            )
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "yuv420p"
            self._stream.time_base = Fraction(1, _TICKS)
            self._stream.codec_context.time_base = Fraction(1, _TICKS)
        frame = self._av.VideoFrame.from_ndarray(_fitted(pixels, self._size), format="rgb24")
        frame.time_base = Fraction(1, _TICKS)
        frame.pts = self._latest = max(round(time_s * _TICKS), self._latest + 1)
        self._out.mux(self._stream.encode(frame))


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """One pixel repeated at the edge where a side is odd; scaled where the size has changed."""
    height, width = pixels.shape[:2]
    right, below = size[0] - width, size[1] - height
    if right in (0, 1) and below in (0, 1):
        if right or below:
            pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


class Track:
    """Where a person is between the moments that were looked at."""

    def __init__(self, person: PersonVerdict) -> None:
        score, track = person.score, person.score.track
        self.id, self.sufficient = track.id, person.sufficient
        self._times = track.times_s
        self._boxes = track.boxes.astype(np.float64)
        self._probabilities = score.frame_probabilities
        # Calibration is affine in the logits, so the mean of calibrated log-odds is what the mean
        # of the logits so far is calibrated to.
        p = np.minimum(np.maximum(self._probabilities, 1e-9), 1 - 1e-9)
        mean = np.cumsum(np.log(p / (1 - p))) / np.arange(1, len(p) + 1)
        self._so_far = 1 / (1 + np.exp(-mean))
        self._step = float(np.median(np.diff(self._times))) if len(self._times) > 1 else 1.0

    def at(self, time_s: float) -> Seen | None:
        """The person at `time_s`; None where the face was not seen nearby."""
        after = int(np.searchsorted(self._times, time_s, side="right"))
        before = max(after - 1, 0)
        after = min(after, len(self._times) - 1)
        reach = _HELD * self._step
        gap = float(self._times[after] - self._times[before])
        if 0 < gap <= 2 * reach:
            part = (time_s - float(self._times[before])) / gap
            box = (1 - part) * self._boxes[before] + part * self._boxes[after]
        else:
            near = before if abs(time_s - self._times[before]) <= reach else after
            if abs(time_s - float(self._times[near])) > reach:
                return None
            box = self._boxes[near]
        return Seen(
            box=box,
            probability=float(self._probabilities[before]),
            so_far=float(self._so_far[before]),
        )


def annotate(
    pixels: NDArray[np.uint8], time_s: float, report: Report, people: list[Track]
) -> NDArray[np.uint8]:
    """A copy of a frame (H, W, 3) uint8 RGB with everything drawn on it."""
    canvas = np.array(pixels, dtype=np.uint8, order="C")
    scale = max(0.4, min(canvas.shape[:2]) / 900)
    thick = max(1, round(2.4 * scale))
    thresholds = report.verdict.thresholds
    for person in people:
        seen = person.at(time_s)
        if seen is None:
            continue
        x0, y0, x1, y1 = (round(side) for side in seen.box.tolist())
        colour = _colour(seen.so_far, thresholds)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, 2 * thick, cv2.LINE_AA)
        note = "" if person.sufficient else "  seen too little"
        text = f"person {person.id}  {seen.probability:.0%}  so far {seen.so_far:.0%}{note}"
        _label(canvas, text, (x0 - thick, y0), scale, thick, colour)
    verdict = report.verdict
    said = verdict.label.replace("_", " ")
    if verdict.probability is not None:
        said += f", probability of fake {verdict.probability:.0%}"
    colour = _COLOURS.get(verdict.label, _NOTE)
    _label(canvas, said, (0, 0), scale, thick, colour)
    _label(canvas, "evidence, not proof", (0, canvas.shape[0]), 0.8 * scale, thick, _NOTE)
    return canvas


def _colour(probability: float, thresholds: Thresholds | None) -> tuple[int, int, int]:
    return _COLOURS["uncertain" if thresholds is None else label_of(probability, thresholds)]


def _label(
    canvas: NDArray[np.uint8],
    text: str,
    corner: tuple[int, int],
    scale: float,
    thick: int,
    colour: tuple[int, int, int],
) -> None:
    """White words on `colour`, above `corner` (x, y) where there is room, never outside."""
    height, width = canvas.shape[:2]
    (wide, high), base = cv2.getTextSize(text, _FONT, scale, thick)
    edge = round(8 * scale)
    full_w, full_h = wide + 2 * edge, high + base + 2 * edge
    x = max(0, min(corner[0], width - full_w))
    y = corner[1] - full_h if corner[1] >= full_h else corner[1]
    y = max(0, min(y, height - full_h))
    cv2.rectangle(canvas, (x, y), (x + full_w, y + full_h), colour, cv2.FILLED)
    place = (x + edge, y + edge + high)
    cv2.putText(canvas, text, place, _FONT, scale, (255, 255, 255), thick, cv2.LINE_AA)
