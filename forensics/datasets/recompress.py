"""Pictures as a video codec leaves them: for augmentation, on our own pixels only.

FaceForensics++'s c23 and c40 are H.264 at CRF 23 and 40: blocks, ringing and chroma at half size
that JPEG does not make alike.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray


def as_h264(image: NDArray[np.uint8], crf: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB as one H.264 key frame at this constant rate factor (0 best, 51 worst).

    Without x264 (some builds of FFmpeg) as MPEG-4 part 2 of about the same coarseness.
    """
    height, width = image.shape[:2]
    # 4:2:0 needs even sides.
    padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    even = np.asarray(padded, dtype=np.uint8)
    encoder, decoder = _codecs(even.shape[1], even.shape[0], crf)
    frame = av.VideoFrame.from_ndarray(even, format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    frames: list[Any] = []
    for packet in [*packets, None]:
        frames += decoder.decode(packet)
    decoded: NDArray[np.uint8] = frames[-1].to_ndarray(format="rgb24")
    return np.ascontiguousarray(decoded[:height, :width])


def _codecs(width: int, height: int, crf: int) -> tuple[Any, Any]:
    x264 = "libx264" in av.codecs_available
    encoder: Any = av.CodecContext.create("libx264" if x264 else "mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.thread_count = Fraction(1, 25), 1
    if x264:
        # x264 speaks on stderr otherwise; one frame needs no slower preset.
        options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency"}
        encoder.options = {**options, "x264-params": "log-level=none"}
    else:
        quantiser = min(max(round(2 ** ((crf - 12) / 6)), 2), 31)  # doubles every 6, as H.264's
        encoder.options = {"qmin": str(quantiser), "qmax": str(quantiser)}
    decoder: Any = av.CodecContext.create("h264" if x264 else "mpeg4", "r")
    decoder.thread_count = 1
    return encoder, decoder
