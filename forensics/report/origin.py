"""What a file's tags and the size of its packets hint at: re-encoding, software, a camera; pure.

Hints, never proof: tags are written by whoever writes the file, and most platforms re-encode.
"""

from __future__ import annotations

import re

from forensics.structures import VideoInfo

# What a tag's value holds -> who wrote the file. Names as those programs write them.
_WRITERS: tuple[tuple[str, str], ...] = (
    (r"\bLavf\d|\bLavc\d|\blibx26[45]\b", "FFmpeg's libraries"),
    (r"produced by Google", "Google (YouTube, Google Photos)"),
    (r"Twitter-vork", "X (Twitter)"),
    (r"^vid:", "TikTok"),
    (r"HandBrake", "HandBrake"),
    (r"Adobe|Premiere|After Effects|Mainconcept", "an Adobe program"),
    (r"DaVinci|Blackmagic", "DaVinci Resolve"),
    (r"CapCut|Lavf-CapCut|ByteDance", "CapCut"),
    (r"GPAC", "GPAC"),
    (r"OBS|obs-output", "OBS Studio"),
)
_CAMERA = ("make", "model", "com.apple.quicktime.make", "com.apple.quicktime.model")
_CAMERA_VERSIONS = ("com.android.version", "com.apple.quicktime.software")
# Bits per pixel and frame below which a codec visibly blurs skin. Cameras write 0.1 to 0.3 in
# H.264; the later codecs need about half for the same picture.
_COARSE = {"h264": 0.04, "hevc": 0.02, "vp9": 0.02, "av1": 0.015, "mpeg4": 0.08, "vp8": 0.05}


def bit_rate(info: VideoInfo) -> float | None:
    """Bits per second of the video stream, None where there is no time to divide by."""
    if info.kind == "image" or info.duration_s <= 0 or info.stream_bytes <= 0:
        return None
    return 8 * info.stream_bytes / info.duration_s


def bits_per_pixel(info: VideoInfo) -> float | None:
    """Bits per pixel and frame, the measure of how hard a video was compressed."""
    if bit_rate(info) is None or info.listed_frames < 1:
        return None
    return 8 * info.stream_bytes / (info.listed_frames * info.width * info.height)


def recompression_hints(info: VideoInfo) -> tuple[str, ...]:
    """Sentences; none where nothing was noticed, which says little."""
    hints: list[str] = []
    for pattern, who in _WRITERS:
        found = next((value for _, value in info.tags if re.search(pattern, value)), None)
        if found is not None:
            hints.append(
                f"A tag names {who} ({found[:60]}): the file was probably encoded or repackaged "
                "after it was recorded."
            )
    density, limit = bits_per_pixel(info), _COARSE.get(info.codec)
    if density is not None and limit is not None and density < limit:
        hints.append(
            f"Strongly compressed: {density:.3f} bits per pixel, and below {limit:g} {info.codec} "
            "blurs fine traces."
        )
    named = [value for name, value in info.tags if name.lower() in _CAMERA]
    if named:
        hints.append(f"Tags name a camera ({' '.join(named)[:80]}); tags are easily changed.")
    elif any(name.lower() in _CAMERA_VERSIONS for name, _ in info.tags):
        hints.append("Tags are those of a phone's camera; tags are easily changed.")
    return tuple(hints)
