"""What examining one file found: the values of which a report is made, and the Report; frozen.

Legend: S crop side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forensics.structures import DecodeStats, Verdict, VideoInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorFacts:
    """Which detector judged: name, version and sha256 of its weights."""

    name: str
    version: str
    sha256: str


CredentialsState = Literal["absent", "trusted", "valid", "invalid", "unreadable", "not_examined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What Content Credentials (C2PA) a file carries and whether they hold.

    `trusted`: intact, and signed by somebody on the library's list; `valid`: intact, by an unknown
    signer; `invalid`: something was changed or the signature does not hold. `codes` are the
    library's own status codes as (outcome, code, explanation), `detail` one sentence.
    """

    state: CredentialsState
    detail: str
    library: str | None = None
    generator: str | None = None
    signer: str | None = None
    signed_at: str | None = None
    actions: tuple[str, ...] = ()
    codes: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Where in a face the detector's answer hangs on the picture.

    `heat` (S, S) float32 in 0..1 over the crop number `place` of the track of person `person`.
    """

    person: int
    place: int
    heat: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What only a report for people needs, kept where one was asked for.

    `heat_method` says in a sentence how the heat maps were made, or why there are none. `card` is
    that of the detector, as plain values.
    """

    heat_maps: tuple[HeatMap, ...]
    heat_method: str
    credentials: Credentials
    card: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything needed to check a verdict a year later; see `forensics.report` for its JSON.

    `started` and `ended` are UTC in ISO 8601; `host` says what machine computed it, without naming
    it or its user. `evidence` is kept only where it was asked for.
    """

    path: str
    sha256: str | None
    info: VideoInfo | None
    stats: DecodeStats | None
    verdict: Verdict
    detector: DetectorFacts
    software: Mapping[str, str]
    config: Mapping[str, Any]
    started: str
    ended: str
    seconds: float
    timings_s: Mapping[str, float] = field(default_factory=dict[str, float])
    num_bytes: int | None = None
    host: Mapping[str, str | int] = field(default_factory=dict[str, "str | int"])
    evidence: Evidence | None = None
