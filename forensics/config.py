"""Typed configurations: every default with its reason, and how mappings become them."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from forensics.errors import ConfigError

T = TypeVar("T")

_LONGEST_S = 1e7  # 116 days, far inside what clocks, sockets and resource limits can hold
_MOST_POSITIONS = 500_000  # as JSON 13 MB at most, and a message to the decoder may have 16


def require_within(config: object, **ranges: tuple[float, float]) -> None:
    """Raises ValueError unless each named value is a number inside its range, or None by default.

    A range of ints asks for a whole number. Its upper end is no wish but what still works: beyond
    it clocks, resource limits or FFmpeg's own options overflow.
    """
    optional = {each.name for each in fields(cast("Any", config)) if each.default is None}
    for name, (least, most) in ranges.items():
        value: object = getattr(config, name)
        whole = isinstance(least, int)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        # NaN compares false with everything.
        if value is None and name in optional:
            continue
        if not (fits and least <= cast("float", value) <= most):
            span = (
                f"whole number from {least} to {most}"
                if whole
                else f"number from {least:g} to {most:g}"
            )
            raise ValueError(f"{name} must be a {span}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """Which frames to look at. `fps`, where given, replaces `frames`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    frames: int = 32  # evenly spaced: the field's convention (DeepfakeBench, SBI, selimsef)
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        # Too many for one file is a limit's business (`Limits.max_frames`), not a wrong setting.
        require_within(
            self,
            frames=(1, 2**31 - 1),
            fps=(1e-4, 1e12),
            start_s=(0.0, _LONGEST_S),
            end_s=(0.0, _LONGEST_S),
        )
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
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
        require_within(
            self,
            wall_s=(1e-3, _LONGEST_S),
            cpu_s=(1e-3, _LONGEST_S),
            memory_mb=(1, 2**24),
            max_pixels=(1, 2**31 - 1),  # FFmpeg's option of this name is a 32-bit int
            delivered_pixels=(1, 2**28),  # times 12 bytes of shared memory: 3 GB
            max_frames=(1, _MOST_POSITIONS),
            max_seconds=(1e-3, _LONGEST_S),
            max_faces=(1, 10_000),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FacesConfig:
    """How faces are found and cut."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    longest_side: int = 640  # frames are scaled down to this for detection
    min_face_px: int = 20  # at detection scale: MTCNN's own smallest
    batch_frames: int = 16  # frames held and detected together

    def __post_init__(self) -> None:
        # MTCNN's own smallest face is 20 pixels: below that a frame cannot hold one.
        require_within(
            self, longest_side=(20, 65_536), min_face_px=(1, 65_536), batch_frames=(1, 4096)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """Everything that decides what `scan` does, beside the checkpoint's own card."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    decoder: Literal["pyav", "decord"] = "pyav"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    limits: Limits = field(default_factory=Limits)
    faces: FacesConfig = field(default_factory=FacesConfig)
    device: str = "auto"
    batch_size: int | None = None  # faces per forward pass; None: 4 per CPU core, 32 on a GPU
    threshold: float | None = None  # replaces the card's threshold for likely_fake

    def __post_init__(self) -> None:
        require_within(self, batch_size=(1, 2**20), threshold=(0.0, 1.0))
        if self.threshold in (0, 1):
            raise ValueError(f"threshold must lie between 0 and 1, not at {self.threshold}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Where the web page listens and what it accepts."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"  # this machine alone
    port: int = 8000  # 0: any free one
    max_upload_mb: int = 1024  # ten minutes of 4K from a phone; the temporary folder holds it
    queue: int = 8  # files that may wait; each may take max_upload_mb of disk
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require_within(self, port=(0, 65_535), max_upload_mb=(1, 2**20), queue=(1, 1000))
        if self.token is not None and not re.fullmatch(r"[!-~]{16,256}", self.token):
            raise ValueError("token must be 16 to 256 visible ASCII characters, none of them blank")
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} is open to other machines: give a token as well (16 "
                "characters or more), or listen on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: only this one is certain to mean this machine
        return host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionConfig:
    """How training crops are cut out of videos."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    frames: int = 32  # per video, evenly spaced, as in scanning
    # Scanning cuts at 1.3: room to shift, turn and scale by a fifth, and for the context that
    # blending needs (a tight crop has none).
    margin: float = 1.8
    size: int = 320  # at most: 1.3 of 1.8 of it is 231 px, what networks of 224 px look at
    picture: Literal["jpg", "png"] = "jpg"
    # Of JPEG, without chroma subsampling: the crop's own compression must not drown the video's.
    quality: int = 95

    def __post_init__(self) -> None:
        require_within(
            self, frames=(1, 4096), margin=(1.0, 10.0), size=(16, 4096), quality=(1, 100)
        )


def load_config(cls: type[T], mapping: Mapping[str, Any], source: str) -> T:
    """Build a `cls` from a mapping; `source` (a file name, "command line") goes into errors.

    Raises ConfigError naming the source, the key and what is wrong: unknown keys included.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(mapping))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
        hint = _nearest_key(cls, first["loc"]) if unknown else ""
        raise ConfigError(f"{source}: {where}: {first['msg']}{hint}") from error


def _nearest_key(cls: type[Any], path: Sequence[int | str]) -> str:
    """`; did you mean lr?` for an unknown key at `path`, or the keys there are. A key that is only
    in the wrong place is named in its own: `optimizer.lr`."""
    for part in path[:-1]:
        cls = get_type_hints(cls).get(str(part), object) if is_dataclass(cls) else object
    if not is_dataclass(cls):
        return ""
    key, types = str(path[-1]), get_type_hints(cls)
    known = [each.name for each in fields(cls)]
    inside = [
        f"{name}.{key}"
        for name in known
        if is_dataclass(types[name]) and key in (each.name for each in fields(types[name]))
    ]
    return f"; did you mean {' or '.join(inside)}?" if inside else nearest(key, known)


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean X?` where a known name is near, else `; known: A, B, C`."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
