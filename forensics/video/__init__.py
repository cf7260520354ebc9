"""From a file to frames: `open_video` is the door, and decoding runs in a process of its own.

    with open_video("clip.mp4", limits=Limits()) as video:
        positions = sample_times(config, video.info.first_s, video.info.last_s, ...)
        for frame in video.frames(positions):
            ...
        print(video.stats.coverage)

Importing this package loads no decoder: PyAV and decord live in the child (`child`, `isolation`).

**Times** are presentation timestamps in seconds, absolute as the file gives them. The frame shown
at a position is the last one presented at or before it (containers round times: one tick, at most
a millisecond, is forgiven); the first frame for earlier positions. A frame is never given twice.

**Coverage** in 0..1 is how much of the promised material was decoded. It is the product of

1. *listed / promised*: frames found by walking the packets, of those the file promises. The promise
   is the sample index of an MP4 or MOV (a time table that claims more samples than have sizes
   promises nothing; samples an edit list hides are not shown and not promised), the frame count in
   the header of other containers, the header's own duration in MKV and WebM; a container that
   states none of these promises what it holds;
2. *decoded / listed*: of the listed frames up to the last one reached, those decoded without
   damage, which spreads until the next key frame. Above 1500 frames, where material is read by
   seeking: the positions answered with their own frame, of the positions asked.

An MP4 cut in half (41 of 90 frames left) ends at 0.46, an AVI with 5 of 90 at 0.06, a file whose
header claims 100000 frames over a complete index of 90 at 1.0.

**Errors** are MediaError with one of four labels: `undecodable`, `no_video_stream`,
`limit_exceeded`, `unsupported`. Wall time counts while the parent waits for the child, so a slow
consumer does not use it up.
"""

from __future__ import annotations

from forensics.video.cancellation import Cancellation
from forensics.video.isolation import dismiss, prestart
from forensics.video.session import VideoSession, open_video

__all__ = ["Cancellation", "VideoSession", "dismiss", "open_video", "prestart"]
