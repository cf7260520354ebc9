"""The default reader: PyAV, packet by packet, so that a corrupt packet costs itself and no more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from typing import Any, BinaryIO, cast

import numpy as np
from av.container.input import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from forensics.errors import MediaError
from forensics.structures import DecodeStats, Frame, VideoInfo
from forensics.video import probe
from forensics.video.facts import describe
from forensics.video.memory import require_room
from forensics.video.picture import Painter, sane_aspect
from forensics.video.sniff import Sniffed
from forensics.video.still import Turn, read_size, read_turn
from forensics.video.wire import Budget

# Up to this many frames (a minute at 25/s) everything is decoded and coverage is exact.
SEQUENTIAL_FRAMES = 1500
# A seek flushes the decoder and its threads; a gap of fewer frames is decoded through.
_WORTH_A_SEEK = 24
_SEEK_TRIES = 3
_PICTURES_AT_ONCE = 4  # that one packet may make a decoder ask memory for


class PyAVReader:
    """See `forensics.video.reader.Reader`."""

    def __init__(self, file: BinaryIO, sniffed: Sniffed, budget: Budget) -> None:
        self._started = time.monotonic()
        self._decoded = 0
        self._corrupt = 0
        self._good = 0
        self._asked = 0
        self._answered = 0
        self._sizes: list[tuple[int, int]] = []  # distinct in a row; bounded by _note_size
        self._size_changes = 0
        self._sought = False
        self._exhausted = False  # decoding went through to the end of the stream
        self._reached: int | None = None  # pts of the last good frame, in ticks
        self._budget = budget
        if size := read_size(file, sniffed.name):
            probe.check_pixels(*size, budget)
        with closing(probe.open_container(file, sniffed, budget)) as container:
            stream = probe.choose_stream(container, budget)
            self.listing = probe.walk(container, stream)
            self._promised = probe.promised_frames(container, stream, self.listing)
        if len(self.listing.pts) == 0:
            raise MediaError("the video stream holds no frames", label="undecodable")
        turn = read_turn(file, sniffed.name) if sniffed.kind == "image" else None
        self._seeks = len(self.listing.pts) > SEQUENTIAL_FRAMES and self.listing.timed
        first = self._start(file, sniffed, explode=not self._seeks, turn=turn)
        if first is None and not self._seeks:
            # A stream cut before its first headers fails as a whole in the strict mode.
            self.close()
            self._decoded = self._corrupt = 0
            self._exhausted = False
            first = self._start(file, sniffed, explode=False, turn=turn)
        if first is None:
            self.close()
            probe.check_header_pixels(file, sniffed, budget)
            raise MediaError("no frame of the video stream could be decoded", label="undecodable")
        self._waiting = first
        self._info = describe(
            sniffed, self._container, self._stream, self.listing, self._promised,
            first, self._painter, budget,
        )  # fmt: skip

    def _start(
        self, file: BinaryIO, sniffed: Sniffed, *, explode: bool, turn: Turn | None
    ) -> VideoFrame | None:
        """Open the file for decoding; its first good frame, which also stays the next one."""
        self._container: InputContainer = probe.open_container(file, sniffed, self._budget)
        self._stream: VideoStream = probe.choose_stream(self._container, self._budget)
        _prepare(self._stream, self._budget, explode=explode)
        self._painter = Painter(
            aspect=sane_aspect(self._stream.sample_aspect_ratio),
            most_pixels=self._budget.delivered_pixels,
            color_trc=self._stream.codec_context.color_trc,
            turn=turn,
        )
        self._frames: Iterator[VideoFrame] = self._decode_on()
        self._waiting: VideoFrame | None = None  # decoded too far: belongs to a later target
        return self._next()

    @property
    def info(self) -> VideoInfo:
        return self._info

    @property
    def times_s(self) -> NDArray[np.float64]:
        return self.listing.times_s

    def read(self, positions: NDArray[np.float64]) -> Iterator[Frame]:
        """Yield the frames shown at `positions`: decoding on, or seeking in long material."""
        targets = self.listing.targets(np.sort(positions))
        self._asked = len(targets)
        index = 0
        delivered: int | None = None
        held: VideoFrame | None = None  # the last good frame at or before the target
        for target in np.unique(targets).tolist():
            if self._seeks and self._jump(target):
                held = None
            if held is None or held.pts != target:
                held = self._advance(target, held)
            if held is None or held.pts is None:
                continue
            if held.pts == target:
                self._answered += int(np.count_nonzero(targets == target))
            if held.pts != delivered:
                delivered = held.pts
                time_s = delivered * self.listing.tick_s
                yield Frame(index=index, time_s=time_s, pixels=self._painter.paint(held))
                index += 1

    def stats(self) -> DecodeStats:
        """Counts of what was decoded; coverage follows the rule in `forensics.video`."""
        listed = len(self.listing.pts)
        if self._sought:
            part = self._answered / max(self._asked, 1)
        else:
            expected = listed
            if not self._exhausted and self._reached is not None:
                expected = int(np.searchsorted(self.listing.pts, self._reached, side="right"))
            part = self._good / max(expected, 1)
        return DecodeStats(
            decoded_frames=self._decoded,
            corrupt_packets=self._corrupt,
            size_changes=self._size_changes,
            coverage=min(1.0, part) * min(1.0, listed / max(self._promised, 1)),
            positions_asked=self._asked,
            positions_read=self._answered,
            seconds=time.monotonic() - self._started,
        )

    def close(self) -> None:
        self._container.close()

    def _next(self) -> VideoFrame | None:
        frame, self._waiting = self._waiting, None
        return frame if frame is not None else next(self._frames, None)

    def _advance(self, target: int, held: VideoFrame | None) -> VideoFrame | None:
        """Decode until `target` is reached or passed; the best frame at or before it."""
        while (frame := self._next()) is not None:
            if frame.pts is None or frame.pts > target:
                self._waiting = frame  # the target itself was lost
                break
            held = frame
            if frame.pts == target:
                break
        return held

    def _jump(self, target: int) -> bool:
        """Seek to the key frame before `target` where that skips enough frames."""
        listing = self.listing
        key = int(np.searchsorted(listing.key_pts, target, side="right")) - 1
        here = 0 if self._reached is None else int(np.searchsorted(listing.pts, self._reached))
        for attempt in range(_SEEK_TRIES):
            if key - attempt < 0:
                return False
            key_pts, key_dts = (
                int(listing.key_pts[key - attempt]),
                int(listing.key_dts[key - attempt]),
            )
            if int(np.searchsorted(listing.pts, key_pts)) - here < _WORTH_A_SEEK:
                return False
            self._sought = True
            try:
                self._container.seek(key_dts, stream=self._stream, backward=True)
            except FFmpegError:
                continue
            self._frames, self._waiting = self._decode_on(), None
            first = self._next()
            # Demuxers without an index (TS) may land behind the key frame: try the one before.
            if first is not None and first.pts is not None and first.pts <= target:
                self._waiting = first
                return True
        return True

    def _decode_on(self) -> Iterator[VideoFrame]:
        """Good frames from the demuxer's place on, in presentation order, with `pts` filled in.

        Damage spreads through prediction, and decoders paint over what they miss without saying so:
        behind a corrupt packet nothing is good until the next key frame.
        """
        damaged = False
        decode: Callable[[Any], list[VideoFrame]] = cast("Any", self._stream).decode
        position = 0  # ordinal among the listed frames, for containers without times
        latest: int | None = None
        for packet in chain(probe.packets(self._container, self._stream), [Packet()]):
            flush = isinstance(packet, Packet) and packet.size == 0 and packet.dts is None
            if packet is None or (packet.size == 0 and not flush):
                continue
            try:
                frames: list[VideoFrame] = decode(None if flush else packet)
            except MemoryError:
                raise
            except BlockingIOError as error:  # the codec could not start its threads
                raise MemoryError("no room for decoder threads") from error
            except (FFmpegError, ValueError):
                self._blame_memory()
                self._corrupt += 1
                position += 1
                damaged = True
                continue
            for frame in frames:
                self._decoded += 1
                if not self.listing.timed:
                    frame.pts = int(self.listing.pts[min(position, len(self.listing.pts) - 1)])
                position += 1
                if frame.is_corrupt:
                    self._blame_memory()
                    self._corrupt += not damaged  # else its packet has been counted
                    damaged = True
                    continue
                damaged = damaged and not frame.key_frame
                if damaged:
                    continue
                if frame.pts is None or (latest is not None and frame.pts <= latest):
                    continue  # no time, or back in time: not part of the shown order
                self._note_size(frame)
                self._good += 1
                latest = self._reached = frame.pts
                yield frame
        self._exhausted = True

    def _blame_memory(self) -> None:
        """Raise MemoryError where damage may be a decoder that got no memory for its pictures."""
        context = self._stream.codec_context
        require_room(_PICTURES_AT_ONCE * context.width * context.height * 3)

    def _note_size(self, frame: VideoFrame) -> None:
        size = (frame.width, frame.height)
        if self._sizes and self._sizes[-1] != size:
            self._size_changes += 1
        self._sizes = [size]


def _prepare(stream: VideoStream, budget: Budget, *, explode: bool) -> None:
    context = stream.codec_context
    options = {"max_pixels": str(budget.max_pixels)}
    if explode:
        # With frame threads a frame's own corrupt flag races with the thread that finds the damage
        # (measured: 19 to 23 of 23); "explode" makes the packet's error say it, every time. Not
        # where we seek: the pictures behind an open GOP's key frame lack references by design.
        options["err_detect"] = "explode"
    context.options = options
    context.thread_type = "AUTO"
    context.thread_count = min(len(os.sched_getaffinity(0)), 8)
