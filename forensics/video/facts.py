"""From the packet walk and the first decoded frame to a `VideoInfo`."""

from __future__ import annotations

from typing import cast

import numpy as np
from av.codec.context import CodecContext
from av.container.input import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from forensics.errors import MediaError
from forensics.structures import VideoInfo
from forensics.video.picture import Painter, hdr_curve, sane_aspect
from forensics.video.probe import Listing
from forensics.video.sniff import Sniffed
from forensics.video.wire import Budget

_MOST_TAGS, _LONGEST_NAME, _LONGEST_TAG = 64, 64, 300  # a hostile file may hold megabytes of them


def describe(
    sniffed: Sniffed,
    container: InputContainer,
    stream: VideoStream,
    listing: Listing,
    promised: int,
    first: VideoFrame,
    painter: Painter,
    budget: Budget,
) -> VideoInfo:
    """What the file is. Raises MediaError `limit_exceeded` where it lasts longer than allowed."""
    shown_size = painter.size(first)
    image = sniffed.kind == "image"
    rate = frame_rate(stream, listing)
    first_s, last_s = (0.0, 0.0) if image else (float(t) for t in listing.times_s[[0, -1]])
    own_length = listing.last_ticks * listing.tick_s or (1 / rate if rate > 0 else 0.0)
    duration_s = 0.0 if image else last_s - first_s + own_length
    if duration_s > budget.max_seconds:
        raise MediaError(
            f"the video lasts {duration_s:.1f} s, the limit is {budget.max_seconds:g} s: cut out "
            "the part in question or raise limits.max_seconds",
            label="limit_exceeded",
        )
    return VideoInfo(
        kind=sniffed.kind,
        container=sniffed.name,
        codec=stream.codec_context.codec.canonical_name,
        width=shown_size[0],
        height=shown_size[1],
        first_s=first_s,
        last_s=last_s,
        duration_s=duration_s,
        frame_rate=0.0 if image else rate,
        declared_frames=stream.frames if stream.frames > 0 else None,
        listed_frames=len(listing.pts),
        key_frames=len(listing.key_pts),
        stream_bytes=listing.num_bytes,
        profile=stream.codec_context.profile or None,
        pixel_format=first.format.name,
        sound=sound_codec(container),
        tags=tags(container, stream),
        traits=traits(sniffed, stream, listing, promised, first, painter),
    )


def sound_codec(container: InputContainer) -> str | None:
    """The codec of the first sound stream, "unknown" where there is no decoder for it."""
    for stream in container.streams.audio:
        context = cast("CodecContext | None", stream.codec_context)
        return "unknown" if context is None else context.codec.canonical_name
    return None


def tags(container: InputContainer, stream: VideoStream) -> tuple[tuple[str, str], ...]:
    """Metadata as (name, value), the container's first: what a stranger wrote, cut to size."""
    found = [
        (f"{prefix}{name}"[:_LONGEST_NAME], value[:_LONGEST_TAG])
        for prefix, metadata in (("", container.metadata), ("video.", stream.metadata))
        for name, value in metadata.items()
    ]
    return tuple(found[:_MOST_TAGS])


def frame_rate(stream: VideoStream, listing: Listing) -> float:
    """Mean frames per second over the shown frames; the header's rate where there is only one."""
    span = float(listing.pts[-1] - listing.pts[0]) * listing.tick_s
    if span > 0:
        return (len(listing.pts) - 1) / span
    return float(stream.average_rate or 0)


def traits(
    sniffed: Sniffed,
    stream: VideoStream,
    listing: Listing,
    promised: int,
    first: VideoFrame,
    painter: Painter,
) -> tuple[str, ...]:
    """Names from `forensics.video.probe.TRAITS`."""
    context = stream.codec_context
    shown_size = painter.size(first)
    turn = painter.turn(first)
    listed = len(listing.pts)
    aspect = sane_aspect(stream.sample_aspect_ratio)
    steps = np.diff(listing.pts)
    uneven = len(steps) > 1 and int(steps.max() - steps.min()) > max(2, 0.1 * np.median(steps))
    depth = max((part.bits for part in first.format.components), default=8)
    found = {
        "rotated": turn[0] or turn[1:] == (True, True),
        "mirrored": sum(turn) % 2 == 1,
        "anamorphic": aspect != 1,
        "interlaced": first.interlaced_frame,
        "high_bit_depth": depth > 8,
        "hdr": hdr_curve(context.color_trc) is not None,
        "variable_frame_rate": uneven and listing.timed,
        "edit_list": listing.hidden > 0,
        "count_mismatch": sniffed.kind == "video" and 0 < stream.frames != listed,
        "truncated": listing.broken_off or promised > listed,
        "no_presentation_times": sniffed.kind == "video" and not listing.timed,
        "scaled_down": shown_size[0] * shown_size[1]
        < int(first.width * aspect) * first.height * 0.99,
    }
    return tuple(name for name, present in found.items() if present)
