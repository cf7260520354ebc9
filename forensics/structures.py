"""The values that cross the borders between stages: frozen, checked at birth.

Legend: T frames of a track, S crop side in pixels, H and W height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

JudgedLabel = Literal["likely_fake", "likely_real", "uncertain"]
AbstentionLabel = Literal[
    "no_face", "undecodable", "no_video_stream", "limit_exceeded", "unsupported"
]
Label = Literal[
    "likely_fake",
    "likely_real",
    "uncertain",
    "no_face",
    "undecodable",
    "no_video_stream",
    "limit_exceeded",
    "unsupported",
]
JUDGED_LABELS: tuple[str, ...] = ("likely_fake", "likely_real", "uncertain")
ABSTENTION_LABELS: tuple[str, ...] = (
    "no_face",
    "undecodable",
    "no_video_stream",
    "limit_exceeded",
    "unsupported",
)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a file's header and packet list say before anything is decoded.

    Width and height are those of the picture as it is shown: after rotation and sample aspect
    ratio. `first_s` and `last_s` are the presentation times of the first and last frame found by
    walking the packets; `duration_s` adds the last frame's own length. `declared_frames` is what
    the container claims (None where it claims nothing), `listed_frames` how many frames the
    packet walk found, `key_frames` how many of them stand alone, `stream_bytes` how large their
    packets are together. `sound` is the codec of the first sound stream, None where there is none.
    `tags` are the metadata of container and stream as (name, value), cut to a bearable length.
    `traits` name what is odd: a closed list in `forensics.video.probe`.
    """

    kind: Literal["video", "image"]
    container: str
    codec: str
    width: int
    height: int
    first_s: float
    last_s: float
    duration_s: float
    frame_rate: float
    declared_frames: int | None
    listed_frames: int
    key_frames: int = 0
    stream_bytes: int = 0
    profile: str | None = None
    pixel_format: str | None = None
    sound: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    traits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.width > 0 and self.height > 0, "a picture has at least one pixel")
        _require(self.last_s >= self.first_s, "last_s lies before first_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeStats:
    """What decoding really delivered, known once a reader has finished.

    `decoded_frames` counts every frame the decoder produced, shown or skipped over;
    `coverage` in 0..1 is the part of the declared material that could be decoded (see
    `forensics.video`); `positions_asked` and `positions_read` count sampling positions.
    """

    decoded_frames: int
    corrupt_packets: int
    size_changes: int
    coverage: float
    positions_asked: int
    positions_read: int
    seconds: float

    def __post_init__(self) -> None:
        _require(0.0 <= self.coverage <= 1.0, "coverage lies outside 0..1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One decoded picture: `pixels` (H, W, 3) uint8 RGB as shown, at `time_s` seconds.

    `time_s` comes from the presentation timestamp; `index` counts the sampled frames from 0.
    """

    index: int
    time_s: float
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        _require(
            self.pixels.ndim == 3 and self.pixels.shape[2] == 3 and self.pixels.dtype == np.uint8,
            f"pixels must be (H, W, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One detected face: `xyxy` (4,) float32 in pixels of the full frame, `landmarks` (5, 2)
    float32 (eyes, nose, mouth corners; left and right as seen in the picture), `probability`
    of being a face in 0..1."""

    xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    probability: float

    def __post_init__(self) -> None:
        _require(self.xyxy.shape == (4,), f"xyxy must be (4,), not {self.xyxy.shape}")
        _require(self.landmarks.shape == (5, 2), "landmarks must be (5, 2)")
        x0, y0, x1, y1 = self.xyxy.tolist()
        _require(x1 > x0 and y1 > y0, f"the box {x0, y0, x1, y1} is empty")

    @property
    def size_px(self) -> float:
        """The longer side of the box in pixels."""
        x0, y0, x1, y1 = self.xyxy.tolist()
        return max(x1 - x0, y1 - y0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One face in one frame, cut out: the unit that tracking links. `crop` (S, S, 3) uint8 RGB."""

    frame_index: int
    time_s: float
    face: Face
    crop: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One person over time: crops (T, S, S, 3) uint8 RGB, `times_s` (T,) float64 ascending,
    `boxes` (T, 4) float32 xyxy in pixels of the full frame, `frame_indices` (T,) int64."""

    id: int
    crops: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    boxes: NDArray[np.float32]
    frame_indices: NDArray[np.int64]

    def __post_init__(self) -> None:
        t = len(self.times_s)
        _require(t > 0, "a track holds at least one face")
        _require(
            len(self.crops) == t and self.boxes.shape == (t, 4) and len(self.frame_indices) == t,
            "crops, times, boxes and frame indices of a track differ in length",
        )

    @property
    def face_px(self) -> float:
        """Median of the longer box side over the track, in pixels of the full frame."""
        sides = np.maximum(self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1])
        return float(np.median(sides))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackScore:
    """What the detector says of one track.

    `logits` (T,) float64 uncalibrated, fake positive; `frame_probabilities` (T,) calibrated;
    `score` the aggregated logit of the track; `probability` its calibrated probability of fake.
    `interval` are the ends of a 95% interval of that probability over the frames looked at, None
    where a single frame tells nothing about it.
    """

    track: Track
    logits: NDArray[np.float64]
    frame_probabilities: NDArray[np.float64]
    score: float
    probability: float
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _require(len(self.logits) == len(self.track.times_s), "one logit per face of the track")
        _require(0.0 <= self.probability <= 1.0, "a probability lies in 0..1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Probabilities at or above `fake` are likely_fake, at or below `real` likely_real."""

    real: float
    fake: float

    def __post_init__(self) -> None:
        _require(0.0 <= self.real <= self.fake <= 1.0, "thresholds need 0 <= real <= fake <= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonVerdict:
    """The verdict on one person of the video."""

    label: JudgedLabel
    score: TrackScore
    sufficient: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one file: a label from the closed list, a calibrated probability of fake
    (None when abstaining) and the reasons, one sentence each."""

    label: Label
    probability: float | None
    thresholds: Thresholds | None
    reasons: tuple[str, ...]
    people: tuple[PersonVerdict, ...] = ()

    def __post_init__(self) -> None:
        _require(self.label in JUDGED_LABELS + ABSTENTION_LABELS, f"unknown label {self.label}")
        judged = self.label in JUDGED_LABELS
        _require(
            judged == (self.probability is not None),
            "a probability is given when a verdict is, and only then",
        )
        _require(not judged or len(self.people) > 0, "no verdict without decoded faces")

    @property
    def abstained(self) -> bool:
        return self.label in ABSTENTION_LABELS
