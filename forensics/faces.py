"""Find faces in frames: the FaceDetector protocol and facenet-pytorch's MTCNN behind it.

MTCNN: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", 2016. This module is the only importer of facenet_pytorch.

Legend: H and W height and width in pixels, B frames of one size, N faces.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from forensics.config import FacesConfig
from forensics.structures import Face

# MTCNN's own thresholds of its three stages, as published with the weights. The last one decides
# what is called a face: at 0.7 patterned clothes and hands pass, real faces sit above 0.95, and
# DFDC's winners and DeepfakeBench's users settled on 0.9 or above.
_THRESHOLDS = (0.6, 0.7, 0.9)
# Step of the picture pyramid: the default of the paper, two steps halve the area.
_PYRAMID_FACTOR = 0.709


class FaceDetector(Protocol):
    """Anything that finds faces in frames."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        """Faces of each frame (H, W, 3) uint8 RGB, most probable first; one list per frame."""
        ...


class MtcnnDetector:
    """MTCNN on scaled-down frames, batched by size. Frames may differ in size within one call.

    Grey (H, W), (H, W, 1) and RGBA (H, W, 4) frames are accepted. A frame too small or too narrow
    to hold a face of `config.min_face_px` at detection scale has no face: an answer, not an error.
    """

    def __init__(self, config: FacesConfig, *, max_faces: int, device: str = "cpu") -> None:
        self._config = config
        self._max_faces = max_faces
        self._device = torch.device(device)
        networks = importlib.import_module("facenet_pytorch.models.mtcnn")
        self._stages = importlib.import_module("facenet_pytorch.models.utils.detect_face")
        self._pnet, self._rnet, self._onet = (
            _load_network(getattr(networks, name), self._device)
            for name in ("PNet", "RNet", "ONet")
        )

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        """Faces of each frame, most probable first, boxes in pixels of the full frame."""
        faces: list[list[Face]] = [[] for _ in frames]
        by_size: dict[tuple[int, int], list[tuple[int, NDArray[np.uint8]]]] = {}
        for position, frame in enumerate(frames):
            small = _shrink(_as_rgb(frame), self._config.longest_side)
            if min(small.shape[:2]) >= self._config.min_face_px:
                by_size.setdefault(small.shape[:2], []).append((position, small))
        for members in by_size.values():
            for start in range(0, len(members), self._config.batch_frames):
                batch = members[start : start + self._config.batch_frames]
                found = self._run(np.stack([small for _, small in batch]))
                for (position, small), (boxes, points) in zip(batch, found, strict=True):
                    faces[position] = _to_faces(
                        boxes, points, small.shape[:2], frames[position].shape[:2]
                    )[: self._max_faces]
        return faces

    def _run(
        self, batch: NDArray[np.uint8]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Boxes with probability (N, 5) and landmarks (N, 5, 2) of each frame of (B, H, W, 3)."""
        with torch.inference_mode():
            boxes, points = self._stages.detect_face(
                batch,
                self._config.min_face_px,
                self._pnet,
                self._rnet,
                self._onet,
                _THRESHOLDS,
                _PYRAMID_FACTOR,
                self._device,
            )
        return [
            (
                np.asarray(boxes[i], dtype=np.float32).reshape(-1, 5),
                np.asarray(points[i], dtype=np.float32).reshape(-1, 5, 2),
            )
            for i in range(len(batch))
        ]


def _load_network(network: Any, device: torch.device) -> torch.nn.Module:
    """One stage with the weights that lie inside facenet-pytorch's wheel: no network, no cache.

    The files are state dicts in torch's pickle-based format, so `weights_only=True` is spelled out:
    torch's restricted unpickler makes tensors and nothing else, whatever the environment says.
    """
    module: torch.nn.Module = network(pretrained=False)
    package = importlib.import_module("facenet_pytorch")
    path = Path(str(package.__file__)).parent / "data" / f"{network.__name__.lower()}.pt"
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return module.eval().to(device)


def _as_rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) from grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4)."""
    pixels = frame[:, :, np.newaxis] if frame.ndim == 2 else frame
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype != np.uint8:
        raise ValueError(
            f"a frame must be (H, W), (H, W, 3) or (H, W, 4) uint8, not {frame.shape} {frame.dtype}"
        )
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _shrink(pixels: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """Scale down so that the longer side is `longest_side`; small pictures stay as they are."""
    height, width = pixels.shape[:2]
    scale = longest_side / max(height, width, 1)
    if scale >= 1.0:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _to_faces(
    boxes: NDArray[np.float32],
    points: NDArray[np.float32],
    small_hw: tuple[int, ...],
    full_hw: tuple[int, ...],
) -> list[Face]:
    """Faces in the full frame from boxes (N, 5) and landmarks (N, 5, 2) of the scaled one.

    Clipped to the frame; boxes that are empty or not finite are dropped. Most probable first, ties
    from left to right, then from top to bottom.
    """
    limit = np.array([full_hw[1], full_hw[0]], dtype=np.float32)
    scale = limit / np.array([small_hw[1], small_hw[0]], dtype=np.float32)
    xyxy = np.clip(boxes[:, :4] * np.tile(scale, 2), 0, np.tile(limit, 2)).astype(np.float32)
    landmarks = np.clip(points * scale, 0, limit).astype(np.float32)
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
    sides = xyxy[:, 2:] - xyxy[:, :2]
    keep = np.flatnonzero(finite & (sides >= 1).all(axis=1))
    order = sorted(keep, key=lambda i: (-float(boxes[i, 4]), *xyxy[i].tolist()))
    return [
        Face(xyxy=xyxy[i], landmarks=landmarks[i], probability=float(min(boxes[i, 4], 1.0)))
        for i in order
    ]
