"""Draw astronaut.mp4: a photograph under a slowly moving, handheld-like camera.

python data/samples/make_astronaut.py [OUTPUT.mp4]      needs scikit-image, beside the package
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

RATE, SECONDS, SIDE = 25, 4, 512


def draw(photograph: NDArray[np.uint8], time_s: float) -> NDArray[np.uint8]:
    """One frame (SIDE, SIDE, 3) uint8 RGB: zoom, pan, a little rotation and a brightness drift."""
    phase = 2 * math.pi * time_s / SECONDS
    # The zoom is large enough that turning and panning never leave the photograph.
    zoom = 1.22 + 0.06 * math.sin(phase)
    height, width = photograph.shape[:2]
    move = cv2.getRotationMatrix2D((width / 2, height / 2), 2.0 * math.sin(phase + 0.7), zoom)
    # Towards the face, which lies above the middle of the photograph.
    move[:, 2] += SIDE / 2 - width / 2 + 14 * math.cos(phase), 40 + 10 * math.sin(2 * phase)
    frame = cv2.warpAffine(
        photograph, move, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    gain = 1.0 + 0.05 * math.sin(phase + 1.9)
    return np.clip(frame * gain, 0, 255).astype(np.uint8)


def write(path: Path, photograph: NDArray[np.uint8]) -> None:
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, RATE)
        stream.thread_count = 1  # the same bytes on every machine with this libx264
        for index in range(RATE * SECONDS):
            frame = av.VideoFrame.from_ndarray(draw(photograph, index / RATE), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    from skimage.data import astronaut

    here = Path(__file__).parent
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else here / "astronaut.mp4", astronaut())
