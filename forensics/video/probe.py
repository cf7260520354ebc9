"""A file's streams and packets, looked at before anything is decoded.

The traits a `VideoInfo` may name, a closed list:

    rotated                a display matrix or EXIF orientation turns the picture by quarters
    mirrored               a display matrix or EXIF orientation mirrors the picture
    anamorphic             pixels are not square
    interlaced             pictures are made of two fields
    high_bit_depth         more than 8 bits per sample
    hdr                    PQ or HLG: mapped to SDR
    variable_frame_rate    the spacing of frames varies by more than a tenth
    edit_list              the container hides some of its frames
    count_mismatch         the container claims another number of frames than its packets show
    truncated              the file ends, or its packets break off, before what its index promises
    no_presentation_times  the container gives decoding order only; times are counted
    scaled_down            pictures exceed the delivered size and are reduced
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, cast

import av
import numpy as np
from av.container.input import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from forensics.errors import MediaError
from forensics.video.sniff import Sniffed
from forensics.video.wire import Budget

TRAITS = (
    "rotated",
    "mirrored",
    "anamorphic",
    "interlaced",
    "high_bit_depth",
    "hdr",
    "variable_frame_rate",
    "edit_list",
    "count_mismatch",
    "truncated",
    "no_presentation_times",
    "scaled_down",
)
_DEMUX_ERRORS = 8  # read errors in a row after which the rest of a file is given up
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the packet walk found: `pts` (N,) int64 ascending, one per shown frame, in ticks of
    `tick_s` seconds; `key_pts` and `key_dts` (K,) of the key frames, ascending in pts; `num_bytes`
    of all packets together."""

    pts: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    key_dts: NDArray[np.int64]
    tick_s: float
    last_ticks: int
    timed: bool
    hidden: int
    broken_off: bool
    num_bytes: int

    @property
    def times_s(self) -> NDArray[np.float64]:
        return np.multiply(self.pts, self.tick_s, dtype=np.float64)

    def targets(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """The pts of the frame shown at each position: the last one at or before it.

        MKV, FLV and ASF round times to milliseconds, so that an evenly spaced position may lie a
        rounding error before the frame it means: one tick, at most a millisecond, is forgiven.
        """
        slack = min(self.tick_s, 1e-3) + 0.5e-6
        at = np.searchsorted(self.times_s, positions + slack, side="right") - 1
        return self.pts[np.maximum(at, 0)]


# A title that is no UTF-8 must not cost the file. PyAV 19 escapes such bytes unasked.
_LENIENT: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
)


def open_container(
    file: BinaryIO, sniffed: Sniffed, budget: Budget, *, only_headers: bool = False
) -> InputContainer:
    """Open a medium with the one demuxer its first bytes name; no other file can be reached.

    FFmpeg reads through the file object, so it never sees a name; nested opens meet an empty
    protocol list. While opening, codecs refuse pictures above the pixel limit; `only_headers`
    instead lets them read any size and decode nothing.
    """
    look = {"skip_frame": "all"} if only_headers else {"max_pixels": str(budget.max_pixels)}
    file.seek(0)
    try:
        return av.open(
            file,
            mode="r",
            format=sniffed.demuxer,
            options={"protocol_whitelist": "none", **look},
            **_LENIENT,
            buffer_size=_READ_BYTES,
            io_open=_refuse_nested,
        )
    except MemoryError:
        raise
    except (FFmpegError, ValueError, OSError) as error:
        raise MediaError(
            f"the {sniffed.name} file cannot be opened: {_reason(error)}", label="undecodable"
        ) from error


def _refuse_nested(url: str, flags: int, options: object) -> object:
    raise PermissionError(f"a medium may not open another file: {url}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def choose_stream(container: InputContainer, budget: Budget) -> VideoStream:
    """The video stream to examine: the largest picture, cover art left out.

    Raises MediaError `no_video_stream`, `unsupported` (no decoder) or `limit_exceeded` (pixels).
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if not streams:
        raise MediaError("the file holds no video stream", label="no_video_stream")
    known = [stream for stream in streams if has_decoder(stream)]
    if not known:
        raise MediaError("no decoder for the file's video codec", label="unsupported")
    stream = max(known, key=lambda one: one.width * one.height)
    check_pixels(stream.width, stream.height, budget)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all  # demuxers then skip its bytes
    return stream


def check_header_pixels(file: BinaryIO, sniffed: Sniffed, budget: Budget) -> None:
    """Raise MediaError `limit_exceeded` where a file gave no picture because it is too large."""
    with closing(open_container(file, sniffed, budget, only_headers=True)) as container:
        for stream in container.streams.video:
            check_pixels(stream.width, stream.height, budget)


def has_decoder(stream: VideoStream) -> bool:
    """Whether this FFmpeg can decode the stream."""
    return cast("object | None", stream.codec_context) is not None


def check_pixels(width: int, height: int, budget: Budget) -> None:
    """Raise MediaError `limit_exceeded` for a coded picture above the budget."""
    if width * height > budget.max_pixels:
        raise MediaError(
            f"pictures of {width}x{height} exceed the limit of {budget.max_pixels} pixels: "
            "scale them down or raise limits.max_pixels",
            label="limit_exceeded",
        )


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream] | None]:
    """The stream's packets in file order, None for each read error; ends after a few in a row."""
    errors = 0
    while errors < _DEMUX_ERRORS:
        try:
            for packet in container.demux(stream):
                if packet.size == 0 and packet.dts is None:
                    return  # the flush packet: end of file
                errors = 0
                yield packet
        except MemoryError:
            raise
        except (FFmpegError, OSError):
            errors += 1
            yield None
        else:
            return


def walk(container: InputContainer, stream: VideoStream) -> Listing:
    """Read every packet without decoding: the real count, times and key frames of a stream."""
    times, key_pts, key_dts = array("q"), array("q"), array("q")
    hidden = num_bytes = 0
    # AVI stores frames in decoding order without presentation times; what FFmpeg derives for
    # B-frames is not in order. The sorted times are right, and frames take them one by one.
    timed = container.format.name != "avi"
    broken_off = False
    last_pts, last_ticks = None, 0
    for packet in packets(container, stream):
        if packet is None:
            broken_off = True
            continue
        if packet.size == 0:
            continue  # AVI writes an empty packet for "show the last frame again"
        if packet.is_discard:
            hidden += 1
            continue
        pts = packet.pts if timed else packet.dts
        if pts is None:
            timed = False
            pts = packet.dts if packet.dts is not None else len(times)
        times.append(pts)
        num_bytes += packet.size
        if packet.is_keyframe:
            key_pts.append(pts)
            key_dts.append(packet.dts if packet.dts is not None else pts)
        if last_pts is None or pts >= last_pts:
            last_pts, last_ticks = pts, packet.duration or 0
    pts_sorted = np.sort(np.frombuffer(times, dtype=np.int64)) if times else np.empty(0, np.int64)
    keys = np.frombuffer(key_pts, dtype=np.int64) if key_pts else np.empty(0, np.int64)
    keys_dts = np.frombuffer(key_dts, dtype=np.int64) if key_dts else np.empty(0, np.int64)
    order = np.argsort(keys, kind="stable")
    return Listing(
        pts=pts_sorted,
        key_pts=keys[order],
        key_dts=keys_dts[order],
        tick_s=float(stream.time_base or Fraction(1, 1000)),
        last_ticks=last_ticks,
        timed=timed,
        hidden=hidden,
        broken_off=broken_off,
        num_bytes=num_bytes,
    )


def promised_frames(container: InputContainer, stream: VideoStream, listing: Listing) -> int:
    """How many shown frames the file says it holds, as far as that can be believed.

    See the coverage rule in `forensics.video`. Never below what the walk found.
    """
    listed = len(listing.pts)
    declared = stream.frames
    if container.format.name.startswith("mov"):
        # The index is made of sample sizes: an stts that claims more samples promises nothing.
        entries = stream.index_entries
        if len(entries) > listed:
            shown = sum(not entry.is_discard for entry in entries)
            return max(listed, min(shown, declared) if declared > 0 else shown)
        return listed
    if declared > 0:
        return max(listed, declared)
    claimed = _claimed_duration(container, stream)
    if claimed and listed > 1:
        seen = float(listing.pts[-1] - listing.pts[0]) * listing.tick_s * listed / (listed - 1)
        if seen > 0 and claimed > seen * 1.05:  # headers round; five percent is no loss
            return max(listed, round(listed * claimed / seen))
    return listed


def _claimed_duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds the header gives the video stream, None where it gives none (or an estimate only)."""
    if "matroska" not in container.format.name:
        return None
    text = stream.metadata.get("DURATION", "")
    parts = text.split(":")
    if len(parts) == 3:
        try:
            hours, minutes, seconds = (float(part) for part in parts)
        except ValueError:
            return None
        return hours * 3600 + minutes * 60 + seconds
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1_000_000
    return None
