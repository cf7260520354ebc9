"""One decoded frame into RGB as a viewer would see it: colour, fields, aspect, rotation, size.

Colour: the matrix and range the frame names; where it names none, BT.601 and the pixel format's
own range, as swscale, OpenCV and decord do. Fields: an interlaced frame is rebuilt from one of its
fields (FFmpeg's `estdif`, which needs no neighbours). Aspect: the width is scaled by the sample
aspect ratio. Rotation: the display matrix, mirrored ones included. A picture above
`delivered_pixels` is scaled down inside the colour conversion, so that the large RGB picture never
exists.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from forensics.video.still import UPRIGHT, Turn
from forensics.video.tonemap import tone_map

# AVColorSpace of a frame -> the one whose matrix swscale is to use; all others read as BT.601.
# As numbers on the frame: PyAV before 18, the last for Python 3.10, has no name for BT.2020.
_BT601 = 5
_MATRICES = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
Curve = Literal["pq", "hlg"]
_CURVES: dict[int, Curve] = {16: "pq", 18: "hlg"}  # AVColorTransferCharacteristic
_BT2020_PRIMARIES = 9


def hdr_curve(color_trc: int) -> Curve | None:
    """The HDR transfer curve that FFmpeg's number names, None for SDR."""
    return _CURVES.get(color_trc)


def sane_aspect(ratio: Fraction | None) -> Fraction:
    """The sample aspect ratio to apply: 1 where none is given or a header lies (beyond 1:8)."""
    if ratio is None or not Fraction(1, 8) <= ratio <= 8:
        return Fraction(1)
    return Fraction(ratio)


def scaled_size(width: int, height: int, aspect: Fraction, most_pixels: int) -> tuple[int, int]:
    """(width, height) with square pixels and at most `most_pixels` of them, before rotation."""
    shown = max(1, round(width * aspect))
    if shown * height > most_pixels:
        shrink = math.sqrt(most_pixels / (shown * height))
        shown, height = max(1, int(shown * shrink)), max(1, int(height * shrink))
    return shown, height


class Painter:
    """Turns the frames of one stream into RGB; keeps swscale's state between frames."""

    def __init__(
        self, *, aspect: Fraction, most_pixels: int, color_trc: int, turn: Turn | None = None
    ) -> None:
        """`turn` replaces each frame's own display matrix."""
        self._turn = turn
        self._aspect = aspect
        self._most_pixels = most_pixels
        self._curve: Curve | None = hdr_curve(color_trc)
        self._reformatter = VideoReformatter()

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) of the picture `paint` gives for this frame."""
        width, height = scaled_size(frame.width, frame.height, self._aspect, self._most_pixels)
        return (height, width) if self.turn(frame)[0] else (width, height)

    def paint(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, possibly a view with odd strides."""
        transposed, flip_x, flip_y = self.turn(frame)
        if frame.interlaced_frame:
            frame = _one_field(frame)
        pixels = self._convert(frame)
        if transposed:
            pixels = np.swapaxes(pixels, 0, 1)
        if flip_y:
            pixels = pixels[::-1]
        if flip_x:
            pixels = pixels[:, ::-1]
        return pixels

    def turn(self, frame: VideoFrame) -> Turn:
        """How the picture is turned: (transpose, then flip x, flip y)."""
        return self._turn if self._turn is not None else _turn_of(frame)

    def _convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        width, height = scaled_size(frame.width, frame.height, self._aspect, self._most_pixels)
        smaller = width * height < frame.width * frame.height
        if not frame.format.is_rgb:
            frame.colorspace = _MATRICES.get(frame.colorspace, _BT601)
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb48le" if self._curve else "rgb24",
            interpolation=Interpolation.AREA if smaller else Interpolation.BICUBIC,
            threads=1,
        )
        pixels = rgb.to_ndarray()
        if self._curve is None:
            return np.asarray(pixels, dtype=np.uint8)
        wide = frame.color_primaries == _BT2020_PRIMARIES
        return tone_map(np.asarray(pixels, dtype=np.uint16), self._curve, wide=wide)


# FFmpeg counts degrees counterclockwise.
_QUARTERS: dict[int, Turn] = {
    0: UPRIGHT,
    1: (True, False, True),
    2: (False, True, True),
    3: (True, True, False),
}


def _turn_of(frame: VideoFrame) -> Turn:
    """The display matrix; angles between go to the nearest quarter.

    The matrix sends (x, y) to (a x + c y, b x + d y), y downwards (libavutil/display.h).
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # Side data that PyAV has no name for: only the rotation is left, not a mirroring.
        return _QUARTERS[round(frame.rotation / 90) % 4]
    except KeyError:
        return UPRIGHT
    if not isinstance(data, SideData) or data.buffer_size < 36:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32, count=5).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _one_field(frame: VideoFrame) -> VideoFrame:
    graph = Graph()
    try:
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or Fraction(1, 1000),
        )
        graph.link_nodes(
            source, graph.add("estdif", "mode=frame:deint=all"), graph.add("buffersink")
        ).configure()
        graph.push(frame)
        graph.push(None)
        rebuilt = graph.pull()
    except (FFmpegError, ValueError):
        return frame  # a pixel format the filter does not take: the woven picture is the better one
    return rebuilt if isinstance(rebuilt, VideoFrame) else frame
