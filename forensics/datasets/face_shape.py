"""A face's outline and parts from five points: a template carried by MTCNN's landmarks.

Data sets bring no landmarks, and a model for more of them would be one more download. Seen from the
five points, annotated brows, eyes, noses and mouths of 340 frontal photographs scatter by 0.03 to
0.09 eye distances an axis and outlines by 0.05 to 0.16 (docs/log.md): about what the hulls are
jittered by. The template lies near their mean, made symmetric and rounded. A turned head is
squeezed with its five points.

Unit: the distance between the eyes; origin between them; x to the right, y down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# MTCNN's five points on the template: eyes, tip of the nose, corners of the mouth.
ANCHORS: NDArray[np.float32] = np.array(
    [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.62], [-0.4, 1.08], [0.4, 1.08]], dtype=np.float32
)

# The right half as seen in the picture; the left mirrors it.
# fmt: off
_HALVES: dict[str, list[tuple[float, float]]] = {
    "jaw": [(1.0, -0.3), (1.04, 0.06), (1.02, 0.42), (0.96, 0.77), (0.85, 1.1), (0.65, 1.39),
            (0.37, 1.63)],
    "forehead": [(0.9, -0.65), (0.7, -0.95), (0.37, -1.13)],
    "brow": [(0.25, -0.3), (0.4, -0.37), (0.55, -0.38), (0.69, -0.36), (0.82, -0.29)],
    "eye": [(0.28, 0.04), (0.36, -0.05), (0.47, -0.09), (0.59, -0.07), (0.68, 0.0), (0.6, 0.07),
            (0.49, 0.09), (0.38, 0.08)],
    "wing": [(0.15, 0.2), (0.2, 0.45), (0.26, 0.69), (0.13, 0.76)],
    "lips": [(0.4, 1.05), (0.27, 1.0), (0.13, 0.97), (0.29, 1.18), (0.17, 1.25)],
}
_MIDDLE: dict[str, list[tuple[float, float]]] = {
    "chin": [(0.0, 1.75)],
    "crown": [(0.0, -1.17)],
    "ridge": [(0.0, -0.02), (0.0, 0.19), (0.0, 0.38), (0.0, 0.57), (0.0, 0.79)],
    "mouth": [(0.0, 0.97), (0.0, 1.29)],
}
# fmt: on
_MIRROR = np.array([-1.0, 1.0])

# Groups of points: `right_jaw`, `left_jaw`, ..., and those on the middle line.
TEMPLATE: dict[str, Points] = {
    **{name: np.array(points) for name, points in _MIDDLE.items()},
    **{f"right_{name}": np.array(points) for name, points in _HALVES.items()},
    **{f"left_{name}": np.array(points) * _MIRROR for name, points in _HALVES.items()},
}


def placed(points: NDArray[np.float64], landmarks: NDArray[np.float32]) -> Points:
    """Template points (N, 2) in pixels, given landmarks (5, 2) in pixels.

    Least squares over all five: a robust fit would drop the mouth of a turned head. Raises
    ValueError where the landmarks are not five finite points.
    """
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise ValueError(f"expected five known landmarks, not {landmarks.tolist()}")
    design = np.concatenate([ANCHORS, np.ones((5, 1), dtype=np.float32)], axis=1)
    matrix = np.linalg.lstsq(design, landmarks, rcond=None)[0]  # (3, 2)
    return np.asarray(points @ matrix[:2] + matrix[2], dtype=np.float64)
