"""What a file is by its first bytes, whatever its name: the demuxer to use, or a refusal.

FFmpeg guesses by name and content and then follows what it found: a playlist opens other files and
the network (media.md, section 1). Here the first bytes decide, from a closed list, and FFmpeg is
told which one demuxer to use; the playlist demuxers (hls, concat, dash, sdp, ...) are not on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from forensics.errors import MediaError

HEAD_BYTES = 4096

# ISO base media: any of these boxes may stand first (QuickTime likes moov or wide).
_MOV_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"}
# HEIF stores one photograph as a grid of tiles; FFmpeg would give one tile for the picture.
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"}
_PLAYLISTS = (
    ("#extm3u", "an HLS playlist"),
    ("#ext-x-", "an HLS playlist"),
    ("ffconcat", "an ffconcat list"),
    ("<mpd", "a DASH manifest"),
    ("<smil", "a SMIL playlist"),
    ("<asx", "an ASX playlist"),
    ("<smoothstreamingmedia", "a Smooth Streaming manifest"),
    ("<playlist", "an XSPF playlist"),
    ("[playlist]", "a PLS playlist"),
    ("[reference]", "a reference playlist"),
    ("v=0", "an SDP session"),
    ("file ", "a concat list"),
    ("file:", "a concat list"),
    ("stream ", "a concat list"),
    ("http://", "a list of addresses"),
    ("https://", "a list of addresses"),
    ("rtsp://", "a list of addresses"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sniffed:
    """A known kind: `demuxer` is FFmpeg's name for it, `name` ours."""

    name: str
    demuxer: str
    kind: Literal["video", "image"] = "video"


def sniff(head: bytes) -> Sniffed:
    """Name the medium whose first HEAD_BYTES bytes are `head`.

    Raises MediaError: `undecodable` for what is no medium at all, `unsupported` for playlists and
    known kinds this project refuses, `no_video_stream` for sound.
    """
    if not head:
        raise MediaError("the file is empty", label="undecodable")
    if not any(head):
        raise MediaError("the file holds only zero bytes", label="undecodable")
    for found in (_iso(head), _riff(head), _by_magic(head), _transport_stream(head)):
        if found is not None:
            return found
    _refuse_known(head)
    _refuse_text(head)
    raise MediaError("not a media file: its first bytes belong to no known container or image",
                     label="undecodable")  # fmt: skip


def _iso(head: bytes) -> Sniffed | None:
    if len(head) < 12 or head[4:8] not in _MOV_BOXES:
        return None
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _HEIF_BRANDS:
            raise MediaError(
                "HEIF and AVIF pictures are not supported: convert the picture to PNG or JPEG",
                label="unsupported",
            )
        if brand == b"qt  ":
            return Sniffed(name="mov", demuxer="mov")
    return Sniffed(name="mp4", demuxer="mov")


def _riff(head: bytes) -> Sniffed | None:
    if head[:4] not in (b"RIFF", b"RF64", b"RIFX"):
        return None
    form = head[8:12]
    if form in (b"AVI ", b"AVIX"):
        return Sniffed(name="avi", demuxer="avi")
    if form == b"WEBP":
        animated = head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & 0x02)
        if animated:
            raise MediaError(
                "animated WebP is not supported: convert it to MP4, or give one picture",
                label="unsupported",
            )
        return Sniffed(name="webp", demuxer="webp_pipe", kind="image")
    if form == b"WAVE":
        raise MediaError("the file holds sound and no video", label="no_video_stream")
    return None


def _by_magic(head: bytes) -> Sniffed | None:
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        name = "webm" if b"webm" in head[:64] else "mkv"
        return Sniffed(name=name, demuxer="matroska")
    if head.startswith(b"\xff\xd8\xff"):
        return Sniffed(name="jpeg", demuxer="jpeg_pipe", kind="image")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        if b"acTL" in head:  # an animated PNG says so before its first picture
            return Sniffed(name="apng", demuxer="apng")
        return Sniffed(name="png", demuxer="png_pipe", kind="image")
    if head[:2] == b"BM" and head[14:18] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0"):
        return Sniffed(name="bmp", demuxer="bmp_pipe", kind="image")
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return Sniffed(name="gif", demuxer="gif")
    if head.startswith(b"FLV\x01"):
        return Sniffed(name="flv", demuxer="flv")
    if head.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return Sniffed(name="asf", demuxer="asf")
    if head.startswith(b"OggS"):
        return Sniffed(name="ogg", demuxer="ogg")
    if head.startswith(b"\x00\x00\x01\xba"):
        return Sniffed(name="mpeg", demuxer="mpeg")
    if head.startswith(b"DKIF"):
        return Sniffed(name="ivf", demuxer="ivf")
    if head.startswith(b"YUV4MPEG2 "):
        return Sniffed(name="y4m", demuxer="yuv4mpegpipe")
    return None


def _transport_stream(head: bytes) -> Sniffed | None:
    # 188-byte packets, or 192 with a leading timestamp (Blu-ray, camcorders): sync bytes in a row.
    for start, stride in ((0, 188), (4, 192)):
        marks = head[start : start + 5 * stride : stride]
        if len(marks) >= 3 and marks.count(0x47) == len(marks):
            return Sniffed(name="ts", demuxer="mpegts")
    return None


def _refuse_known(head: bytes) -> None:
    if head[:4] in (b"ID3\x02", b"ID3\x03", b"ID3\x04", b"fLaC", b"MThd") or (
        head[0] == 0xFF and len(head) > 1 and head[1] in (0xFB, 0xF3, 0xF2, 0xF1, 0xF9)
    ):
        raise MediaError("the file holds sound and no video", label="no_video_stream")
    if head[:4] in (b"II*\0", b"MM\0*"):
        raise MediaError("TIFF is not supported: convert it to PNG", label="unsupported")
    if head[:5] == b"\0\0\0\x01\x67" or head[:5] in (b"\0\0\0\x01\x40", b"\0\0\x01\xb3\x14"):
        raise MediaError(
            "a bare H.264/H.265/MPEG stream has no timestamps: wrap it into MP4 or MKV first",
            label="unsupported",
        )


def _refuse_text(head: bytes) -> None:
    text = head.decode(
        "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "ignore"
    )
    start = text.lstrip().lower()
    for mark, kind in _PLAYLISTS:
        if start.startswith(mark) or (mark.startswith("<") and mark in start):
            raise MediaError(
                f"{kind} names other files; playlists are refused: give the media file itself",
                label="unsupported",
            )
    if "#extm3u" in start[:256]:
        raise MediaError(
            "an HLS playlist names other files; playlists are refused", label="unsupported"
        )
    printable = sum(byte >= 32 or byte in (9, 10, 13) for byte in head)
    if printable == len(head) and start:
        raise MediaError("a text file, not a medium", label="undecodable")
