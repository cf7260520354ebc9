"""What parent and child say to each other: length-prefixed JSON over a Unix socket, no pickle.

parent -> child   {"open": {decoder, budget}} with two descriptors: the medium, the frame memory
child  -> parent  {"info": {...}}
parent -> child   {"read": [seconds, ...]} or {"read": "every frame"}
child  -> parent  {"frame": {slot, height, width, time_s}} ...   at most SLOTS unacknowledged
parent -> child   {"free": slot}                                 the slot may be written again
child  -> parent  {"done": {...}}  or, at any time,  {"error": {message, label}}
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from forensics.structures import DecodeStats, VideoInfo

if TYPE_CHECKING:
    from forensics.config import Limits

EVERY_FRAME = "every frame"
SLOTS = 4  # frames in flight: the child decodes on while the parent copies one out
_HEADER = struct.Struct("!I")
_LONGEST = 16 * 2**20  # one message; 4096 positions are below 0.1 MiB


class ConnectionEnded(Exception):
    """The other side closed the channel or broke its rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The part of `forensics.config.Limits` that the child enforces on itself.

    A type of its own, because importing the configuration costs the child pydantic's start-up.
    """

    cpu_s: float
    memory_mb: int
    max_pixels: int
    delivered_pixels: int
    max_seconds: float

    @classmethod
    def of(cls, limits: Limits) -> Budget:
        """The child's part of `limits`, in their units."""
        return cls(
            cpu_s=limits.cpu_s,
            memory_mb=limits.memory_mb,
            max_pixels=limits.max_pixels,
            delivered_pixels=limits.delivered_pixels,
            max_seconds=limits.max_seconds,
        )

    @property
    def slot_bytes(self) -> int:
        return self.delivered_pixels * 3


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message, with open file descriptors beside it."""
    body = json.dumps(message).encode()
    header = _HEADER.pack(len(body))
    try:
        if fds:
            socket.send_fds(channel, [header], fds)
            channel.sendall(body)
        else:
            channel.sendall(header + body)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ConnectionEnded("the other side is gone") from error


def receive(channel: socket.socket, max_fds: int = 0) -> tuple[dict[str, Any], list[int]]:
    """Wait for one message; raises ConnectionEnded, or TimeoutError after the socket's timeout."""
    fds: list[int] = []
    try:
        if max_fds:
            header, fds, _, _ = socket.recv_fds(channel, _HEADER.size, max_fds)
            header += _exactly(channel, _HEADER.size - len(header)) if header else b""
        else:
            header = _exactly(channel, _HEADER.size)
        if len(header) != _HEADER.size:
            raise ConnectionEnded("the channel was closed")
        (length,) = _HEADER.unpack(header)
        if length > _LONGEST:
            raise ConnectionEnded(f"a message of {length} bytes is not part of the protocol")
        message = json.loads(_exactly(channel, length))
    except (ConnectionResetError, ValueError) as error:
        raise ConnectionEnded("the channel broke") from error
    if not isinstance(message, dict):
        raise ConnectionEnded("a message is an object")
    return cast("dict[str, Any]", message), list(fds)


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while count > 0:
        part = channel.recv(min(count, 2**20))
        if not part:
            raise ConnectionEnded("the channel was closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def to_json(value: VideoInfo | DecodeStats) -> dict[str, Any]:
    """A header or the counts as a JSON object."""
    return asdict(value)


def info_from_json(value: Any) -> VideoInfo:
    """The header again; raises ConnectionEnded where the child sent something else."""
    try:
        tags = tuple((str(name), str(text)) for name, text in value["tags"])
        fields: dict[str, Any] = {**value, "traits": tuple(value["traits"]), "tags": tags}
        return VideoInfo(**fields)
    except (TypeError, KeyError, ValueError) as error:
        raise ConnectionEnded(f"the header is malformed: {error}") from error


def stats_from_json(value: Any) -> DecodeStats:
    """The counts again; raises ConnectionEnded where the child sent something else."""
    try:
        return DecodeStats(**value)
    except (TypeError, ValueError) as error:
        raise ConnectionEnded(f"the counts are malformed: {error}") from error
