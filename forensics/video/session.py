"""One file being read: the parent's side of a decoder child, as a context manager."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forensics.errors import MediaError
from forensics.structures import DecodeStats, Frame, VideoInfo
from forensics.video import isolation, wire
from forensics.video.cancellation import Cancellation
from forensics.video.reader import check_decoder

if TYPE_CHECKING:
    from forensics.config import Limits  # not loaded here: the child imports this package, too


def open_video(
    path: str | os.PathLike[str],
    *,
    limits: Limits,
    decoder: str = "pyav",
    cancellation: Cancellation | None = None,
) -> VideoSession:
    """Open a video or picture for reading in a decoder process of its own.

    Raises MediaError (label `undecodable`, `no_video_stream`, `limit_exceeded` or `unsupported`)
    naming the file, and ConfigError for an unknown decoder. Nothing is decoded twice: `info` is
    known at once, frames come from `VideoSession.frames`. `cancellation` ends the decoder from
    another thread: what waits for it here then raises MediaError.
    """
    check_decoder(decoder)
    return VideoSession(
        path, limits=limits, decoder=decoder, cancellation=cancellation or Cancellation()
    )


class VideoSession:
    """An open medium: `info` at once, `frames(positions)` once, `stats` after the last frame."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        limits: Limits,
        decoder: str,
        cancellation: Cancellation,
    ) -> None:
        self._name = _printable(path)
        self._limits = limits
        self._stats: DecodeStats | None = None
        self._read = False
        self._child: isolation.DecoderProcess | None = None
        budget = wire.Budget.of(limits)
        self._slot_bytes = budget.slot_bytes
        try:
            medium = isolation.open_medium(path)
        except MediaError as error:
            raise self._named(error) from error.__cause__
        try:
            try:
                memory, self._ring = isolation.frame_memory(budget.slot_bytes * wire.SLOTS)
            except MediaError as error:
                raise self._named(error) from error.__cause__
            try:
                self._child = isolation.take(decoder)
                cancellation.attach(self._child)
                self._child.limit(
                    memory_mb=limits.memory_mb, wall_s=limits.wall_s, cpu_s=limits.cpu_s
                )
                job = {"decoder": decoder, "budget": asdict(budget)}
                self._child.send({"open": job}, (medium, memory))
                self._info = self._open_info()
            except MediaError as error:
                self.close()
                raise self._named(error) from error.__cause__
            except BaseException:
                self.close()
                raise
            finally:
                os.close(memory)
        finally:
            os.close(medium)

    @property
    def info(self) -> VideoInfo:
        return self._info

    @property
    def stats(self) -> DecodeStats:
        """What decoding delivered; RuntimeError before the frames have been read to their end."""
        if self._stats is None:
            raise RuntimeError("stats are known when the frames have been read to their end")
        return self._stats

    def frames(self, positions: NDArray[np.float64]) -> Iterator[Frame]:
        """Yield the frames shown at `positions` (N,) seconds, in order, each with its own memory.

        Lazy: the child stays at most a few frames ahead. May be called once. Raises MediaError.
        """
        if len(positions) > self._limits.max_frames:
            raise MediaError(
                f"{self._name}: {len(positions)} frames asked, the limit is "
                f"{self._limits.max_frames}: look at fewer or raise limits.max_frames",
                label="limit_exceeded",
            )
        return self._frames(np.asarray(positions, dtype=np.float64).tolist())

    def every_frame(self) -> Iterator[Frame]:
        """Yield all frames in order, as `frames` does; for whoever makes a video of a video."""
        return self._frames(wire.EVERY_FRAME)

    def close(self) -> None:
        """End the child and give the memory back; may be called again."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        # An interrupt may have left a view of the memory in its traceback; it goes with that.
        with suppress(BufferError):
            self._ring.close()

    def __enter__(self) -> VideoSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_info(self) -> VideoInfo:
        message = self._receive()
        try:
            return wire.info_from_json(message["info"])
        except (wire.ConnectionEnded, KeyError) as error:
            raise _malformed() from error

    def _frames(self, positions: list[float] | str) -> Iterator[Frame]:
        if self._read:
            raise RuntimeError("the frames of a session can be read once; open the file again")
        self._read = True
        return self._receive_frames(positions)

    def _receive_frames(self, positions: list[float] | str) -> Iterator[Frame]:
        try:
            self._send({"read": positions})
            index = 0
            while "done" not in (message := self._receive()):
                slot, time_s, pixels = self._copy_out(message)
                self._send({"free": slot})
                yield Frame(index=index, time_s=time_s, pixels=pixels)
                index += 1
            self._stats = wire.stats_from_json(message["done"])
        except MediaError as error:
            self.close()
            raise self._named(error) from error.__cause__
        except wire.ConnectionEnded as error:
            self.close()
            raise self._named(_malformed()) from error

    def _copy_out(self, message: dict[str, Any]) -> tuple[int, float, NDArray[np.uint8]]:
        """One frame out of the shared memory; the child's numbers are checked, not trusted."""
        try:
            frame = message["frame"]
            slot, height, width = int(frame["slot"]), int(frame["height"]), int(frame["width"])
            time_s = float(frame["time_s"])
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed() from error
        fits = height > 0 and width > 0 and height * width * 3 <= self._slot_bytes
        if not fits or not 0 <= slot < wire.SLOTS:
            raise _malformed()
        start = slot * self._slot_bytes
        pixels = np.array(np.ndarray((height, width, 3), np.uint8, self._ring, start))  # a copy
        return slot, time_s, pixels

    def _send(self, message: dict[str, Any]) -> None:
        self._living().send(message)

    def _receive(self) -> dict[str, Any]:
        return self._living().receive()

    def _living(self) -> isolation.DecoderProcess:
        if self._child is None:
            raise RuntimeError("the session is closed")
        return self._child

    def _named(self, error: MediaError) -> MediaError:
        return MediaError(f"{self._name}: {error}", label=error.label)


def _malformed() -> MediaError:
    return MediaError("the decoder gave a malformed answer", label="undecodable")


def _printable(path: str | os.PathLike[str]) -> str:
    """The path for a one-line message: no control characters, no surrogates."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
        for char in os.fspath(path)
    )
