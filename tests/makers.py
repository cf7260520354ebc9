"""Media made on the spot, whose truth we drew: every picture carries its own number.

A picture's upper half shows its number as ten grey bars (bit 9 left, bit 0 right); the lower half
is red on the left and blue on the right, so that a turned or mirrored picture shows it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 10
Picture = NDArray[np.uint8]


def numbered_picture(number: int, width: int = 160, height: int = 96) -> Picture:
    """(H, W, 3) uint8 RGB: the number in bars above, red and blue below."""
    picture = np.full((height, width, 3), 128, np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        level = 220 if number >> (BITS - 1 - bit) & 1 else 30
        picture[: height // 2, edges[bit] : edges[bit + 1]] = level
    picture[height // 2 :, : width // 2] = (200, 30, 30)
    picture[height // 2 :, width // 2 :] = (30, 30, 200)
    return picture


def read_number(picture: Picture) -> int:
    """The number drawn by `numbered_picture`, whatever size the picture has by now."""
    height, width = picture.shape[:2]
    row = picture[height // 8 : 3 * height // 8].mean(axis=(0, 2))
    edges = np.linspace(0, width, BITS + 1)
    number = 0
    for left, right in pairwise(edges.tolist()):
        third = (right - left) / 3
        number = number * 2 + int(row[int(left + third) : int(right - third) + 1].mean() > 125)
    return number


def write_video(
    path: Path,
    *,
    frames: int = 90,
    size: tuple[int, int] = (160, 96),
    rate: int = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    ticks: int = 30000,
    rotation: int = 0,
    mirrored: bool = False,
    aspect: Fraction | None = None,
    draw: Callable[[int, int, int], Picture] = numbered_picture,
    prepare: Callable[[Any], None] | None = None,
    number_from: int = 0,
    audio: bool = False,
) -> Path:
    """Encode `frames` numbered pictures; `times` are presentation times in 1/`ticks` s."""
    width, height = size
    with av.open(
        str(path), "w", format=container, container_options=container_options or {}
    ) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = Fraction(1, ticks)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        if prepare is not None:
            prepare(stream)
        sound: Any = out.add_stream("aac", rate=48000) if audio else None
        for number in range(frames):
            picture = draw(number_from + number, width, height)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts = times[number] if times is not None else number * ticks // rate
            frame.time_base = Fraction(1, ticks)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            out.mux(_silence(sound, frames / rate))
    return path


def _silence(stream: Any, seconds: float) -> Iterable[Any]:
    for start in range(0, int(seconds * 48000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = 48000, start
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write_audio(path: Path) -> Path:
    """One second of silence and no picture."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=48000)
        if path.suffix == ".mp4":
            out.mux(_silence(stream, 1.0))
        else:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "stereo")
            frame.sample_rate, frame.pts = 48000, 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def write_image(
    path: Path, codec: str, *, number: int = 5, size: tuple[int, int] = (160, 96)
) -> Path:
    """One numbered picture as a still, by encoder name, whatever the suffix says."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height = size
    context.pix_fmt = {"mjpeg": "yuvj444p", "libwebp": "bgra", "bmp": "bgr24"}.get(codec, "rgb24")
    context.time_base = Fraction(1, 25)
    if codec == "mjpeg":
        context.options = {"qmin": "1", "qmax": "2"}
    frame = av.VideoFrame.from_ndarray(numbered_picture(number, *size), format="rgb24")
    frame = frame.reformat(format=context.pix_fmt)
    frame.pts = 0
    data = b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])
    path.write_bytes(data)
    return path


def add_exif_orientation(path: Path, orientation: int) -> Path:
    """Put an EXIF block with this orientation behind a JPEG's first marker."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    return path


def box_at(data: bytes | bytearray, name: bytes) -> int:
    """Where the body of the first MP4 box with this name starts."""
    place = bytes(data).index(name)
    return place + 4


def patch(path: Path, change: Callable[[bytearray], None]) -> Path:
    """Change a file's bytes in place."""
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))
    return path


def truncate(path: Path, part: float) -> Path:
    """Keep the first `part` of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


def flip_bytes_in_mdat(path: Path, *, start: float = 0.2, count: int = 40, seed: int = 1) -> Path:
    """Damage `count` bytes behind `start` of an MP4's sample data."""

    def change(data: bytearray) -> None:
        body = box_at(data, b"mdat")
        size = int.from_bytes(data[body - 8 : body - 4], "big") - 8
        random = np.random.default_rng(seed)
        for place in random.integers(int(size * start), size, count).tolist():
            data[body + place] ^= 0xFF

    return patch(path, change)


def wreck_sample_table(path: Path) -> Path:
    """Point every chunk of an MP4 behind the end of the file."""

    def change(data: bytearray) -> None:
        body = box_at(data, b"stco")
        (entries,) = struct.unpack_from(">I", data, body + 4)
        for entry in range(entries):
            struct.pack_into(">I", data, body + 8 + 4 * entry, 0x7FFFFF00)

    return patch(path, change)


def claim_frames(path: Path, count: int) -> Path:
    """Let an MP4's time table claim another number of frames."""

    def change(data: bytearray) -> None:
        struct.pack_into(">I", data, box_at(data, b"stts") + 8, count)

    return patch(path, change)


def start_edit_at(path: Path, seconds: float) -> Path:
    """Let an MP4's edit list start the presentation `seconds` later."""

    def change(data: bytearray) -> None:
        (timescale,) = struct.unpack_from(">I", data, box_at(data, b"mdhd") + 12)
        body = box_at(data, b"elst")
        (first,) = struct.unpack_from(">i", data, body + 12)
        struct.pack_into(">i", data, body + 12, first + int(seconds * timescale))

    return patch(path, change)


def write_size_change(path: Path, first: tuple[int, int], second: tuple[int, int]) -> Path:
    """Thirty VP8 frames of one size, then thirty of another, in one WebM stream."""
    parts = [
        write_video(
            path.with_suffix(f".part{n}.webm"),
            frames=30,
            size=size,
            codec="libvpx",
            number_from=30 * n,
        )
        for n, size in enumerate((first, second))
    ]
    with av.open(str(path), "w") as out:
        stream: Any = None
        for n, part in enumerate(parts):
            with av.open(str(part)) as source:
                if stream is None:
                    stream = out.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is None:
                        continue
                    packet.pts += 1000 * n
                    packet.dts += 1000 * n
                    packet.stream = stream
                    out.mux(packet)
    for part in parts:
        part.unlink()
    return path


def write_long_video(
    path: Path, *, seconds: int, rate: int = 30, size: tuple[int, int] = (160, 96)
) -> Path:
    """A video of any length in a moment: one encoded GOP, its packets muxed over and over."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=rate, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 1000
        stream.codec_context.thread_count = 1
        packets: list[bytes] = []
        keys: list[bool] = []
        for number in range(rate):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, *size), format="rgb24")
            for packet in stream.encode(frame.reformat(format="yuv420p")):
                packets.append(bytes(packet))
                keys.append(packet.is_keyframe)
        for packet in stream.encode(None):
            packets.append(bytes(packet))
            keys.append(packet.is_keyframe)
        for number in range(seconds * rate):
            packet = av.Packet(packets[number % rate])
            packet.stream = stream
            packet.time_base = Fraction(1, rate)
            packet.pts = packet.dts = number
            packet.duration = 1
            packet.is_keyframe = keys[number % rate]
            out.mux(packet)
    return path
