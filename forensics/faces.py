"""Find faces in frames: the FaceDetector protocol and facenet-pytorch's MTCNN behind it.

MTCNN: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", 2016. This module is the only importer of facenet_pytorch. It takes the networks and the
box arithmetic from there and joins them itself, because `detect_face` crashes on boxes that leave
the frame and cuts candidates one by one; tests hold the result equal to `detect_face`.

Legend: H and W height and width in pixels, B frames of one size, N boxes, S side of a candidate.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import resources
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from forensics.config import FacesConfig
from forensics.downscale import averaged, averaged_boxes, shrink, summed_areas
from forensics.runtime import Workers
from forensics.structures import Face

# Probability needed to pass each of the three stages. The first two are MTCNN's own. The last
# decides what is called a face. On 88 real clips (16 frames each) MTCNN's own 0.7 added 46 boxes to
# the 1496 above 0.9, half of them hands, jewellery and letters; 0.97 lost most of a dim face.
_THRESHOLDS = (0.6, 0.7, 0.9)
# Overlap above which two candidates are one: within a pyramid step, then within a frame.
_STEP_OVERLAP, _FRAME_OVERLAP = 0.5, 0.7
_PYRAMID_FACTOR = 0.709  # step of the picture pyramid: the paper's; each step halves the area
_FIRST_SIDE, _SECOND_SIDE, _THIRD_SIDE = 12, 24, 48  # what the three networks look at, in pixels
_CHUNK = 512  # candidates per forward pass: bounds memory on pictures full of false candidates
# Frames that one core looks at together: what stays in its cache. CPU seconds of 32 frames of
# 640 x 360: 1.3 by fours, 1.4 by eights, 1.8 at once.
_CORE_FRAMES = 4

_Found = tuple[NDArray[np.float32], NDArray[np.float32]]


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

    def __init__(
        self,
        config: FacesConfig,
        *,
        max_faces: int,
        device: str = "cpu",
        workers: Workers | None = None,
    ) -> None:
        """`workers` share the frames of one call; the caller closes them."""
        self._config = config
        self._workers = workers
        self._max_faces = max_faces
        self._device = torch.device(device)
        # Imported here: it brings torchvision, which other users of this module do not need. By
        # name: it has no types, and `Any` says so once.
        with _without_compiler():
            networks = importlib.import_module("facenet_pytorch.models.mtcnn")
        self._box: Any = importlib.import_module("facenet_pytorch.models.utils.detect_face")
        # The wheel's own weights are pickles; data/recipes/mtcnn_weights.py rewrote them.
        weights = resources.files("forensics.weights") / "mtcnn" / "weights.safetensors"
        tensors = load_file(str(weights))
        self._pnet, self._rnet, self._onet = (
            _load_network(network, tensors, self._device)
            for network in (networks.PNet, networks.RNet, networks.ONet)
        )

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        """Faces of each frame, most probable first, boxes in pixels of the full frame.

        Raises ValueError where a frame is not a uint8 picture.
        """
        pictures = [as_rgb(frame) for frame in frames]
        return self.detect_small(pictures, [frame.shape[:2] for frame in frames])

    def detect_small(
        self, pictures: Sequence[NDArray[np.uint8]], full_hws: Sequence[tuple[int, ...]]
    ) -> list[list[Face]]:
        """`detect` for RGB pictures that may have been scaled down elsewhere, as `shrink` does it.

        `full_hws`: height and width of the frames that they were, in whose pixels the boxes are.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for position, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(position)
        together = self._config.batch_frames
        if self._device.type == "cpu":
            together = min(together, _CORE_FRAMES)
        batches = [
            positions[start : start + together]
            for positions in by_size.values()
            for start in range(0, len(positions), together)
        ]

        def look(batch: list[int]) -> list[list[Face]]:
            side = self._config.longest_side
            small = np.stack([shrink(pictures[position], side) for position in batch])
            if min(small.shape[1:3]) < self._config.min_face_px:
                return [[] for _ in batch]
            return [
                to_faces(boxes, points, small.shape[1:3], full_hws[position])[: self._max_faces]
                for position, (boxes, points) in zip(batch, self._run(small), strict=True)
            ]

        found = map(look, batches) if self._workers is None else self._workers.map(look, batches)
        faces: list[list[Face]] = [[] for _ in pictures]
        for batch, faces_of_batch in zip(batches, found, strict=True):
            for position, faces_of_frame in zip(batch, faces_of_batch, strict=True):
                faces[position] = faces_of_frame
        return faces

    def _run(self, batch: NDArray[np.uint8]) -> list[_Found]:
        """Boxes with probability (N, 5) and landmarks (N, 5, 2) of each frame of (B, H, W, 3)."""
        with torch.inference_mode():
            sums = summed_areas(batch).to(self._device)
            boxes, owners = self._propose(sums)
            boxes, owners = self._refine(sums, boxes, owners)
            boxes, points, owners = self._decide(sums, boxes, owners)
        found = boxes.cpu().numpy(), points.cpu().numpy()
        owner = owners.cpu().numpy()
        return [(found[0][owner == i], found[1][owner == i]) for i in range(len(batch))]

    def _propose(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1: square boxes (N, 5) and the frame (N,) each is in; tables of `summed_areas`."""
        height, width = sums.shape[1] - 1, sums.shape[2] - 1
        scale = _FIRST_SIDE / self._config.min_face_px
        boxes = torch.empty(0, 9, device=self._device)
        owners = torch.empty(0, dtype=torch.int64, device=self._device)
        # Rounding: min_face_px times its own scale may come out a hair below the side of stage 1.
        while min(height, width) * scale >= _FIRST_SIDE - 1e-6:
            size = int(height * scale + 1), int(width * scale + 1)
            offsets, probabilities = self._pnet(_normalise(averaged(sums, size)))
            found, owner = self._box.generateBoundingBox(
                offsets, probabilities[:, 1], scale, _THRESHOLDS[0]
            )
            keep = self._box.batched_nms(found[:, :4], found[:, 4], owner, _STEP_OVERLAP)
            boxes, owners = torch.cat([boxes, found[keep]]), torch.cat([owners, owner[keep]])
            scale *= _PYRAMID_FACTOR
        keep = self._box.batched_nms(boxes[:, :4], boxes[:, 4], owners, _FRAME_OVERLAP)
        boxes, owners = boxes[keep], owners[keep]
        sides = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        moved = boxes[:, :4] + boxes[:, 5:9] * sides
        return self._box.rerec(torch.cat([moved, boxes[:, 4:5]], dim=1)), owners

    def _refine(self, sums: Tensor, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 2: fewer, better boxes (N, 5)."""
        (offsets, probabilities), boxes, owners = self._look(
            self._rnet, sums, boxes, owners, _SECOND_SIDE
        )
        score = probabilities[:, 1]
        passed = score > _THRESHOLDS[1]
        boxes = torch.cat([boxes[passed, :4], score[passed, None]], dim=1)
        owners, offsets = owners[passed], offsets[passed]
        keep = self._box.batched_nms(boxes[:, :4], boxes[:, 4], owners, _FRAME_OVERLAP)
        return self._box.rerec(self._box.bbreg(boxes[keep], offsets[keep])), owners[keep]

    def _decide(self, sums: Tensor, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stage 3: final boxes (N, 5), landmarks (N, 5, 2) and the frames (N,) they belong to."""
        (offsets, points, probabilities), boxes, owners = self._look(
            self._onet, sums, boxes, owners, _THIRD_SIDE
        )
        score = probabilities[:, 1]
        passed = score > _THRESHOLDS[2]
        boxes = torch.cat([boxes[passed, :4], score[passed, None]], dim=1)
        owners = owners[passed]
        # Relative positions: five x, then five y; MTCNN counts pixels from 1.
        relative = points[passed].reshape(-1, 2, 5).permute(0, 2, 1)
        sides = boxes[:, 2:4] - boxes[:, :2] + 1
        landmarks = relative * sides[:, None] + boxes[:, None, :2] - 1
        boxes = self._box.bbreg(boxes, offsets[passed])
        keep = self._box.batched_nms_numpy(boxes[:, :4], boxes[:, 4], owners, _FRAME_OVERLAP, "Min")
        return boxes[keep], landmarks[keep], owners[keep]

    def _look(
        self, network: nn.Module, sums: Tensor, boxes: Tensor, owners: Tensor, side: int
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Run a network on what lies in each box, without the boxes wholly outside the frame."""
        y, y_end, x, x_end = self._box.pad(boxes, sums.shape[2] - 1, sums.shape[1] - 1)
        corners = np.stack([x - 1, y - 1, x_end, y_end], axis=1).astype(np.int64)  # (N, 4) xyxy
        inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        corners, visible = corners[inside], torch.as_tensor(inside).to(self._device)
        boxes, owners = boxes[visible], owners[visible]
        if not len(corners):
            # The networks refuse an empty batch; one black candidate tells the outputs' shapes.
            nothing = network(torch.zeros(1, 3, side, side, device=self._device))
            return tuple(part[:0] for part in nothing), boxes, owners
        outputs: list[tuple[Tensor, ...]] = []
        for start in range(0, len(corners), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            candidates = averaged_boxes(sums, corners[chunk], owners[chunk], side)
            outputs.append(network(_normalise(candidates)))
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True)), boxes, owners


def _load_network(network: Any, tensors: dict[str, Tensor], device: torch.device) -> nn.Module:
    """One stage: facenet-pytorch's network with its weights from `tensors`."""
    module: nn.Module = network(pretrained=False)
    prefix = f"{network.__name__.lower()}."
    module.load_state_dict(
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    )
    # channels_last makes the pooling of the small networks three times faster on a CPU.
    module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (stub lacks it)
    return module.eval().to(device)


@contextmanager
def _without_compiler() -> Generator[None]:
    """Let torchvision be imported without torch's compiler, which it wants for one function.

    facenet-pytorch needs torchvision for non-maximum suppression; `torchvision.ops.roi_align` then
    imports torch._dynamo, 1.3 s of every command, to ask it a question at call time. Within the
    block that import finds a module whose function asks the real one when it is called.
    """
    names = ("torch._dynamo", "torch._dynamo.utils")
    if any(name in sys.modules for name in (*names, "torchvision")):
        yield
        return

    def is_compile_supported(device_type: str) -> bool:
        real = importlib.import_module("torch._dynamo.utils")
        return bool(real.is_compile_supported(device_type))

    stand_ins = {name: ModuleType(name) for name in names}
    vars(stand_ins["torch._dynamo.utils"])["is_compile_supported"] = is_compile_supported
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _normalise(pixels: Tensor) -> Tensor:
    """0..255 to -1..1, as MTCNN was trained."""
    return (pixels - 127.5) * 0.0078125


def as_rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) from grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4), alpha ignored."""
    pixels = frame[:, :, np.newaxis] if frame.ndim == 2 else frame
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype != np.uint8:
        raise ValueError(
            f"a frame must be (H, W), (H, W, 3) or (H, W, 4) uint8, not {frame.shape} {frame.dtype}"
        )
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def to_faces(
    boxes: NDArray[np.float32],
    points: NDArray[np.float32],
    small_hw: tuple[int, ...],
    full_hw: tuple[int, ...],
) -> list[Face]:
    """Faces in the full frame from boxes (N, 5) and landmarks (N, 5, 2) of the scaled one.

    Clipped to the frame; boxes without a pixel inside it and boxes that are not finite are dropped.
    Most probable first, ties from left to right, then from top to bottom.
    """
    limit = np.array([full_hw[1], full_hw[0]], dtype=np.float32)
    scale = limit / np.array([small_hw[1], small_hw[0]], dtype=np.float32)
    corners = np.minimum(
        np.maximum(np.stack([boxes[:, :2], boxes[:, 2:4]], axis=1) * scale, 0), limit
    )
    landmarks = np.minimum(np.maximum(points * scale, 0), limit).astype(np.float32)
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
    whole = (corners[:, 1] - corners[:, 0] >= 1).all(axis=1)
    xyxy = np.concatenate([corners[:, 0], corners[:, 1]], axis=1).astype(np.float32)
    order = sorted(
        (int(i) for i in np.flatnonzero(finite & whole)),
        key=lambda i: (-float(boxes[i, 4]), *xyxy[i].tolist()),
    )
    return [
        Face(xyxy=xyxy[i], landmarks=landmarks[i], probability=min(float(boxes[i, 4]), 1.0))
        for i in order
    ]
