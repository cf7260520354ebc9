"""What a still picture's header says: its size, and how it wants to be turned.

Read here and not by FFmpeg: it refuses very large pictures without telling their size, and PyAV
has no name for the side data of pictures with an EXIF block.
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


def read_size(file: BinaryIO, container: str) -> tuple[int, int] | None:
    """(width, height) as a picture's header states them, None where it cannot be read.

    Of moving pictures too, where FFmpeg would not open the file and not say why.
    """
    file.seek(0)
    head = file.read(128)
    try:
        if container == "gif":
            return struct.unpack_from("<HH", head, 6)
        if container == "y4m":
            return _y4m_size(head)
        if container in ("png", "apng"):
            return struct.unpack_from(">II", head, 16)
        if container == "bmp":
            width, height = struct.unpack_from("<ii", head, 18)
            return abs(width), abs(height)
        if container == "webp":
            return _webp_size(head)
        return _jpeg_size(file) if container == "jpeg" else None
    except (struct.error, EOFError):
        return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"VP8X":  # two 24-bit numbers, each one less than the size
        width, height = (int.from_bytes(head[place : place + 3], "little") for place in (24, 27))
        return width + 1, height + 1
    if head[12:16] == b"VP8L":  # 14 bits each behind a signature byte
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _y4m_size(head: bytes) -> tuple[int, int] | None:
    fields = {word[:1]: word[1:] for word in head.split(b"\n", 1)[0].split(b" ")[1:]}
    width, height = fields.get(b"W", b""), fields.get(b"H", b"")
    return (int(width), int(height)) if width.isdigit() and height.isdigit() else None


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(2)
    for _ in range(_MOST_BLOCKS):
        mark, kind, size = struct.unpack(">BBH", _read(file, 4))
        if mark != 0xFF or kind == 0xDA:
            return None
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start of frame
            _, height, width = struct.unpack(">BHH", _read(file, 5))
            return width, height
        file.seek(max(size - 2, 0), 1)
    return None


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
