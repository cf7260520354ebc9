"""Faces as pictures inside a page: JPEG data addresses, heat laid over a face, how sharp it is.

Legend: S crop side in pixels.
"""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

_QUALITY = 86
# Variance of the Laplacian of a grey crop of 224 px (Pech-Pacheco et al., ICPR 2000): below the
# first blurred, from the second on sharp. Rules of thumb, not measured limits.
_SHARPNESS = ((40.0, "blurred"), (150.0, "soft"))
_SHARPNESS_SIDE = 224


def data_address(crop: NDArray[np.uint8], side: int) -> str:
    """(S, S, 3) uint8 RGB as a JPEG of at most `side` pixels, in an address that needs no file."""
    if crop.shape[0] > side:
        crop = np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    done, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(crop[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if not done:
        raise ValueError(f"a crop of shape {crop.shape} cannot be written as JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def with_heat(crop: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A face (S, S, 3) under its heat (S, S), scaled to its own maximum; cold places grey."""
    heat = heat / max(float(heat.max()), 1e-9)
    level = np.asarray(np.round(255 * heat), np.uint8)
    colours = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), np.float32)[..., ::-1]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    weight = (0.75 * heat**0.7)[..., None]
    return np.asarray(np.round((1 - weight) * grey + weight * colours), np.uint8)


def sharpness(crop: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey crop at 224 px: how much fine detail there is."""
    side = (_SHARPNESS_SIDE, _SHARPNESS_SIDE)
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    if grey.shape != side:
        grey = cv2.resize(grey, side, interpolation=cv2.INTER_LINEAR)
    return float(np.var(cv2.Laplacian(grey, cv2.CV_64F)))


def in_words(value: float) -> str:
    """A sharpness as a word."""
    return next((word for limit, word in _SHARPNESS if value < limit), "sharp")
