"""HDR pictures (PQ, HLG) into the SDR range a detector was trained on; pure numpy.

PQ is SMPTE ST 2084, HLG is ARIB STD-B67 (both in ITU-R BT.2100). Light is counted in units of
reference white, 203 cd/m2 (ITU-R BT.2408); the extended Reinhard curve (Reinhard et al., 2002) on
the largest of R, G, B brings 0..1000 cd/m2 into 0..1 and keeps hue. Then BT.2020 primaries become
BT.709 and the sRGB curve is applied: white ends near level 192, 1000 cd/m2 at 255.
Shapes: (H, W, 3) uint16 in, (H, W, 3) uint8 out.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WHITE_NITS = 203.0
PEAK_NITS = 1000.0
_ROWS = 64  # rows at a time, so that the float copies stay small whatever the picture's size

# ITU-R BT.2087: linear BT.2020 RGB to linear BT.709 RGB.
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)


def tone_map(
    rgb16: NDArray[np.uint16], curve: Literal["pq", "hlg"], *, wide: bool = True
) -> NDArray[np.uint8]:
    """Full-range 16-bit RGB with transfer `curve` to 8-bit sRGB; `wide` for BT.2020 primaries."""
    to_linear, to_srgb = _linear_table(curve), _srgb_table()
    out = np.empty(rgb16.shape, dtype=np.uint8)
    peak = PEAK_NITS / WHITE_NITS
    for top in range(0, len(rgb16), _ROWS):
        light: NDArray[np.float32] = to_linear[
            rgb16[top : top + _ROWS] >> 4
        ]  # (rows, W, 3) in units of white
        if curve == "hlg":  # the system gamma of a 1000-nit screen acts on luminance
            luma = light @ np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
            light *= (np.maximum(luma, 1e-6) ** 0.2)[..., None] * peak
        brightest = np.maximum(light.max(axis=2), 1e-6)  # (rows, W)
        light *= ((1 + brightest / peak**2) / (1 + brightest))[..., None]
        if wide:
            light = np.matmul(light, np.swapaxes(_TO_709, 0, 1))
        level = np.minimum(np.maximum(light, 0), 1) * (len(to_srgb) - 1)
        out[top : top + _ROWS] = to_srgb[np.asarray(level, dtype=np.uint16)]
    return out


@cache
def _linear_table(curve: str) -> NDArray[np.float32]:
    """(4096,) linear light for a 12-bit signal: white is 1 for PQ, the peak is 1 for HLG."""
    signal = np.arange(4096, dtype=np.float64) / 4095
    if curve == "pq":
        power = signal ** (1 / 78.84375)
        nits = 10000 * (
            np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        ) ** (1 / 0.1593017578125)  # fmt: skip
        return (nits / WHITE_NITS).astype(np.float32)
    low = signal**2 / 3
    high = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(signal <= 0.5, low, high).astype(np.float32)


@cache
def _srgb_table() -> NDArray[np.uint8]:
    """(16384,) 8-bit sRGB levels for linear light; white (1.0 before the curve) lands near 190."""
    light = np.arange(16384, dtype=np.float64) / 16383
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)
