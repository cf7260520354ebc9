"""Typed configurations: every default with its reason, and how mappings become them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from forensics.errors import ConfigError

T = TypeVar("T")


def _require_positive(config: object, *names: str) -> None:
    """Raises ValueError unless each named value is finite and above 0, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:  # false for NaN, too
            raise ValueError(f"{name} must be above 0 and finite, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """Which frames to look at. `fps`, where given, replaces `frames`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    frames: int = 32  # evenly spaced: the field's convention (DeepfakeBench, SBI, selimsef)
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        _require_positive(self, "frames", "fps")
        start = 0.0 if self.start_s is None else self.start_s
        end = math.inf if self.end_s is None else self.end_s
        # Written so that NaN, which compares false with everything, is refused.
        if not (0 <= start < end and (self.end_s is None or end < math.inf)):
            raise ValueError(
                f"start and end must satisfy 0 <= start < end, not {self.start_s} and {self.end_s}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may cost. Beyond any of these the file ends as `limit_exceeded`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    wall_s: float = 300.0  # of the decoder process
    cpu_s: float = 600.0  # RLIMIT_CPU of the decoder process
    memory_mb: int = 4096  # RLIMIT_AS of the decoder process: address space, not resident memory
    max_pixels: int = 8192 * 8192  # of one coded picture; refused from the header
    delivered_pixels: int = 3840 * 2160  # larger pictures are scaled down while converting
    max_frames: int = 4096  # sampling positions asked of one file
    max_seconds: float = 12 * 3600.0  # duration of one file
    max_faces: int = 64  # per frame; the most probable are kept

    def __post_init__(self) -> None:
        _require_positive(self, *(each.name for each in fields(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FacesConfig:
    """How faces are found and cut."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    longest_side: int = 640  # frames are scaled down to this for detection
    min_face_px: int = 20  # at detection scale: MTCNN's own smallest
    batch_frames: int = 16  # frames detected together

    def __post_init__(self) -> None:
        _require_positive(self, *(each.name for each in fields(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """Everything that decides what `scan` does, beside the checkpoint's own card."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    decoder: Literal["pyav", "decord"] = "pyav"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    limits: Limits = field(default_factory=Limits)
    faces: FacesConfig = field(default_factory=FacesConfig)
    device: str = "auto"
    batch_size: int = 32  # faces per forward pass
    threshold: float | None = None  # replaces the card's threshold for likely_fake

    def __post_init__(self) -> None:
        _require_positive(self, "batch_size")
        if self.threshold is not None and not 0.0 < self.threshold < 1.0:
            raise ValueError("threshold must lie between 0 and 1")


def load_config(cls: type[T], mapping: Mapping[str, Any], source: str) -> T:
    """Build a `cls` from a mapping; `source` (a file name, "command line") goes into errors.

    Raises ConfigError naming the source, the key and what is wrong: unknown keys included.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise ConfigError(f"{source}: {where}: {first['msg']}") from error
