"""How a photograph wants to be turned: the orientation tag of JPEG, PNG and WebP pictures.

Read here and not from FFmpeg, whose side data PyAV cannot name for pictures with EXIF blocks.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

# (transpose, then flip x, flip y) for the eight values of tag 0x0112 (EXIF 2.3, section 4.6.4).
Turn = tuple[bool, bool, bool]
UPRIGHT: Turn = (False, False, False)
_TURNS: dict[int, Turn] = {
    1: UPRIGHT,
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_ORIENTATION = 0x0112
_MOST_BLOCKS = 4096  # chunks or segments looked at: a hostile file may hold millions


def read_turn(file: BinaryIO, container: str) -> Turn:
    """The turn that an image file asks for; upright where it has no (readable) EXIF block."""
    find = {"jpeg": _in_jpeg, "png": _in_png, "webp": _in_webp}.get(container)
    if find is None:
        return UPRIGHT
    try:
        block = find(file)
        return UPRIGHT if block is None else _TURNS.get(_orientation(block), UPRIGHT)
    except (struct.error, EOFError):
        return UPRIGHT  # a damaged block says nothing; the picture itself may be whole


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _in_jpeg(file: BinaryIO) -> bytes | None:
    file.seek(2)
    for _ in range(_MOST_BLOCKS):
        mark, kind, size = struct.unpack(">BBH", _read(file, 4))
        if mark != 0xFF or kind == 0xDA or size < 2:
            return None  # picture data begins
        if kind == 0xE1:
            body = _read(file, size - 2)
            if body.startswith(b"Exif\0\0"):
                return body[6:]
        else:
            file.seek(size - 2, 1)
    return None


def _in_png(file: BinaryIO) -> bytes | None:
    file.seek(8)
    for _ in range(_MOST_BLOCKS):
        size, name = struct.unpack(">I4s", _read(file, 8))
        if name == b"eXIf":
            return _read(file, min(size, 65536))
        if name == b"IEND":
            return None
        file.seek(size + 4, 1)
    return None


def _in_webp(file: BinaryIO) -> bytes | None:
    file.seek(12)
    for _ in range(_MOST_BLOCKS):
        name, size = struct.unpack("<4sI", _read(file, 8))
        if name == b"EXIF":
            return _read(file, min(size, 65536)).removeprefix(b"Exif\0\0")
        file.seek(size + size % 2, 1)
    return None


def _orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for entry in range(min(entries, 512)):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
        if tag == _ORIENTATION and kind == 3:
            return int(value)
    return 1
