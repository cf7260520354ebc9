"""The second reader: decord, for what it reads as PyAV does; a named refusal for the rest.

decord 0.6 (2022) repeats frames silently behind edit lists and size changes, gives up whole files
for one bad packet, and ignores aspect, fields and HDR (media.md, section 1). What it would get
wrong is recognised from PyAV's packet walk and refused before decord sees the file. The only
importer of decord.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, BinaryIO

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from forensics.errors import MediaError
from forensics.structures import DecodeStats, Frame, VideoInfo
from forensics.video import probe
from forensics.video.memory import require_room
from forensics.video.pyav_reader import PyAVReader
from forensics.video.sniff import Sniffed
from forensics.video.wire import Budget

# What decord gets wrong, by trait. `rotated` and `variable_frame_rate` agree with PyAV.
REFUSED_TRAITS = {
    "mirrored": "does not mirror pictures",
    "anamorphic": "ignores the shape of pixels",
    "interlaced": "leaves both fields in the picture",
    "high_bit_depth": "converts more than 8 bits differently",
    "hdr": "does not map HDR to SDR",
    "edit_list": "repeats frames behind an edit list",
    "count_mismatch": "trusts the container's wrong frame count",
    "truncated": "refuses or cuts truncated files",
    "scaled_down": "cannot scale pictures down while decoding",
}


def load_decord() -> Any:
    """The decord module; raises MediaError `unsupported` where it is not installed."""
    try:
        import decord  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except (ImportError, OSError) as error:
        raise MediaError(
            "decord is not installed: pip install decord, or use --decoder pyav",
            label="unsupported",
        ) from error
    return decord


# Containers on which the agreement test holds. In TS decord starts at the second key frame and
# gives its pictures the first one's times.
AGREEING_CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi", "asf", "flv")


_ROOM = 128 * 2**20  # decord asks for stacks and pictures of several threads at once


class DecordReader:
    """See `forensics.video.reader.Reader`."""

    def __init__(self, file: BinaryIO, sniffed: Sniffed, budget: Budget) -> None:
        self._started = time.monotonic()
        decord = load_decord()
        if sniffed.kind == "image":
            raise _refusal("reads videos only")
        if sniffed.name not in AGREEING_CONTAINERS:
            raise _refusal(f"is not held to agree with PyAV on {sniffed.name} files")
        plain = PyAVReader(file, sniffed, budget)
        self._info = plain.info
        self._listing = plain.listing
        plain.close()
        for trait, reason in REFUSED_TRAITS.items():
            if trait in self._info.traits:
                raise _refusal(f"{reason} ({trait})")
        if _changes_size(file, sniffed, budget):
            raise _refusal("repeats frames where the picture size changes (size change)")
        try:
            # The descriptor, not the file's name: a name could be read as an address.
            self._video: Any = decord.VideoReader(f"/proc/self/fd/{file.fileno()}", num_threads=0)
        except (decord.DECORDError, RuntimeError, AssertionError) as error:
            require_room(_ROOM)
            raise _refusal("cannot open this file") from error
        if len(self._video) != len(self._listing.pts):
            raise _refusal(
                f"counts {len(self._video)} frames where the packets show {len(self._listing.pts)}"
            )
        self._next = 0  # the frame that decord gives when it is asked for one
        self._asked = 0
        self._answered = 0
        self._decord_error: type[Exception] = decord.DECORDError

    @property
    def info(self) -> VideoInfo:
        return self._info

    @property
    def times_s(self) -> NDArray[np.float64]:
        return self._listing.times_s

    def read(self, positions: NDArray[np.float64]) -> Iterator[Frame]:
        """Yield the frames shown at `positions`; decord is asked by index, times stay ours."""
        targets = self._listing.targets(np.sort(positions))
        self._asked = len(targets)
        first_s = self._info.first_s  # decord's clock starts at the first frame
        wanted: list[int] = np.unique(targets).tolist()
        for index, target in enumerate(wanted):
            number = int(np.searchsorted(self._listing.pts, target))
            try:
                pixels = self._frame(number)
                shown_s = first_s + float(self._video.get_frame_timestamp(number)[0])
            except (self._decord_error, RuntimeError, StopIteration) as error:
                require_room(_ROOM)
                raise _refusal(f"cannot decode frame {number} of this file") from error
            time_s = target * self._listing.tick_s
            if abs(shown_s - time_s) > 2e-3:
                raise _refusal(
                    f"places frame {number} at {shown_s:.3f} s instead of {time_s:.3f} s"
                )
            self._answered += int(np.count_nonzero(targets == target))
            yield Frame(index=index, time_s=time_s, pixels=pixels)

    def _frame(self, number: int) -> NDArray[np.uint8]:
        """Frame `number`, by decoding every frame on the way, slow as that is in long material.

        decord's other ways give wrong pictures (measured on H.264, HEVC and WMV2): `skip_frames`
        lands a key frame too far, `seek_accurate` misses behind HEVC's open GOPs and in ASF.
        """
        while self._next < number:
            self._video.next()
            self._next += 1
        self._next += 1
        pixels: Any = self._video.next().asnumpy()
        return np.array(pixels, dtype=np.uint8)

    def stats(self) -> DecodeStats:
        """decord tells neither damage nor what it decoded on the way: only frames given count."""
        return DecodeStats(
            decoded_frames=self._answered,
            corrupt_packets=0,
            size_changes=0,
            coverage=self._answered / max(self._asked, 1),
            positions_asked=self._asked,
            positions_read=self._answered,
            seconds=time.monotonic() - self._started,
        )

    def close(self) -> None:
        self._video = None


def _refusal(reason: str) -> MediaError:
    return MediaError(f"decord {reason}: use --decoder pyav", label="unsupported")


def _changes_size(file: BinaryIO, sniffed: Sniffed, budget: Budget) -> bool:
    """Whether key frames differ in size: a change needs a sequence header, so a key frame."""
    sizes: set[tuple[int, int]] = set()
    with closing(probe.open_container(file, sniffed, budget)) as container:
        stream = probe.choose_stream(container, budget)
        stream.codec_context.skip_frame = "NONKEY"
        for packet in probe.packets(container, stream):
            if packet is None or not packet.is_keyframe:
                continue
            try:
                sizes.update((frame.width, frame.height) for frame in packet.decode())
            except FFmpegError as error:
                require_room(_ROOM)
                raise _refusal("gives up files with corrupt packets (corrupt)") from error
    return len(sizes) > 1
