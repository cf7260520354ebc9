"""The first bytes decide what a file is."""

from __future__ import annotations

import pytest

from forensics.errors import MediaError
from forensics.video.sniff import sniff


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"\0\0\0\x20ftypisom\0\0\x02\0", "mp4", "video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "mov", "video"),
        (b"\x1a\x45\xdf\xa3\x42\x82\x84webm", "webm", "video"),
        (b"\x1a\x45\xdf\xa3\x42\x82\x88matroska", "mkv", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "avi", "video"),
        ((b"\x47" + bytes(187)) * 4, "ts", "video"),
        ((bytes(4) + b"\x47" + bytes(187)) * 4, "ts", "video"),
        (b"\0\0\x01\xba" + bytes(20), "mpeg", "video"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "jpeg", "image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "png", "image"),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(20), "webp", "image"),
        (b"GIF89a" + bytes(20), "gif", "video"),
    ],
)
def test_known_kinds_are_named_by_their_magic(head: bytes, name: str, kind: str) -> None:
    found = sniff(head)
    assert (found.name, found.kind) == (name, kind)


@pytest.mark.parametrize(
    ("head", "label"),
    [
        (b"", "undecodable"),
        (bytes(64), "undecodable"),
        (b"PK\x03\x04 a zip\x00", "undecodable"),
        (b"just words", "undecodable"),
        (b"#EXTM3U\n", "unsupported"),
        (b"\xef\xbb\xbf#EXTM3U\n", "unsupported"),
        (b"\n\n  #EXTM3U\n", "unsupported"),
        ("#EXTM3U\n".encode("utf-16"), "unsupported"),
        (b"ffconcat version 1.0\n", "unsupported"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<MPD>", "unsupported"),
        (b"<ASX version='3'>", "unsupported"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "unsupported"),
        (b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + bytes(20), "unsupported"),
        (b"\0\0\0\x01\x67\x64\0\x1f", "unsupported"),
        (b"II*\0" + bytes(20), "unsupported"),
        (b"ID3\x04" + bytes(20), "no_video_stream"),
        (b"fLaC" + bytes(20), "no_video_stream"),
        (b"RIFF\0\0\0\0WAVEfmt ", "no_video_stream"),
    ],
)
def test_everything_else_is_refused_by_name(head: bytes, label: str) -> None:
    with pytest.raises(MediaError) as caught:
        sniff(head)
    assert caught.value.label == label
