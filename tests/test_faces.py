"""Faces: found where they are, at any frame size, and never a crash of MTCNN's."""

from __future__ import annotations

import importlib
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from portraits import FACE_XYXY, PORTRAIT_SIZE, portrait, scene, stranger

from forensics.config import FacesConfig
from forensics.faces import MtcnnDetector, to_faces
from forensics.runtime import Workers

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector(FacesConfig(), max_faces=8)


def overlap(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(shared / (sum(areas) - shared))


def test_the_face_of_a_portrait_is_found_with_its_landmarks(detector: MtcnnDetector) -> None:
    (face,) = detector.detect([portrait()])[0]
    assert overlap(face.xyxy, FACE_XYXY) > 0.9
    assert face.probability > 0.99
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1664, 0), (820, 400), (1664, 824)])
def test_a_face_in_a_full_hd_frame_is_found_where_it_was_pasted(
    detector: MtcnnDetector, x: int, y: int
) -> None:
    (face,) = detector.detect([scene(1080, 1920, [(portrait(), x, y)])])[0]
    assert overlap(face.xyxy, np.add(FACE_XYXY, (x, y, x, y))) > 0.8
    assert (face.landmarks > np.array([x, y])).all()
    assert (face.landmarks < np.array([x, y]) + PORTRAIT_SIZE).all()


def test_upright_frames_are_scaled_by_their_height(detector: MtcnnDetector) -> None:
    (face,) = detector.detect([scene(1920, 1080, [(portrait(), 300, 1200)])])[0]
    assert overlap(face.xyxy, np.add(FACE_XYXY, (300, 1200, 300, 1200))) > 0.8


def test_smaller_faces_are_found_with_a_larger_longest_side() -> None:
    small = cv2.resize(portrait(), (80, 80), interpolation=cv2.INTER_AREA)
    frame = scene(1080, 1920, [(np.asarray(small, np.uint8), 900, 500)])
    faces = {
        side: MtcnnDetector(FacesConfig(longest_side=side), max_faces=8).detect([frame])[0]
        for side in (640, 1920)
    }
    assert faces[640] == []
    assert len(faces[1920]) == 1
    where = np.array(FACE_XYXY) * 80 / PORTRAIT_SIZE + (900, 500, 900, 500)
    assert overlap(faces[1920][0].xyxy, where) > 0.7


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (10, 10), (19, 400), (400, 19), (20, 400), (400, 20), (2, 5000), (100, 4000), (0, 9)],
)
def test_tiny_and_elongated_frames_have_no_face(
    detector: MtcnnDetector, height: int, width: int
) -> None:
    assert detector.detect([np.full((height, width, 3), 127, np.uint8)]) == [[]]


def test_no_frames_give_no_lists(detector: MtcnnDetector) -> None:
    assert detector.detect([]) == []


def test_a_frame_without_a_face_gives_an_empty_list(detector: MtcnnDetector) -> None:
    assert detector.detect([np.zeros((360, 640, 3), np.uint8)] * 2) == [[], []]


def test_frames_of_mixed_sizes_and_layouts_are_answered_in_order(detector: MtcnnDetector) -> None:
    grey = np.asarray(cv2.cvtColor(portrait(), cv2.COLOR_RGB2GRAY), np.uint8)
    alpha = np.dstack([portrait(), np.zeros((256, 256), np.uint8)])
    frames = [
        np.zeros((360, 640, 3), np.uint8),
        grey,
        grey[:, :, None],
        alpha,
        np.zeros((10, 10), np.uint8),
        scene(480, 300, [(portrait(), 20, 100)]),
        portrait(),
    ]
    assert [len(faces) for faces in detector.detect(frames)] == [0, 1, 1, 1, 0, 1, 1]


def test_transparent_pixels_count_as_what_they_hold(detector: MtcnnDetector) -> None:
    alpha = np.dstack([portrait(), np.zeros((256, 256), np.uint8)])
    (with_alpha,), (without,) = detector.detect([alpha, portrait()])
    np.testing.assert_allclose(with_alpha.xyxy, without.xyxy, atol=1e-3)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((20, 20, 2), np.uint8),
        np.zeros((20,), np.uint8),
        np.zeros((20, 20, 3), np.float32),
    ],
)
def test_what_is_no_picture_is_refused_by_name(
    detector: MtcnnDetector, frame: NDArray[Any]
) -> None:
    with pytest.raises(ValueError, match="a frame must be"):
        detector.detect([frame])


def test_faces_do_not_depend_on_what_else_is_in_the_batch() -> None:
    frames = [
        scene(360, 640, [(portrait(), 20 * i, 5 * i), (stranger(), 370, 60)]) for i in range(6)
    ]
    frames[2] = np.zeros((360, 640, 3), np.uint8)
    one = MtcnnDetector(FacesConfig(batch_frames=1), max_faces=8).detect(frames)
    many = MtcnnDetector(FacesConfig(batch_frames=16), max_faces=8).detect(frames)
    some = MtcnnDetector(FacesConfig(batch_frames=4), max_faces=8).detect(frames[3:])
    workers = Workers(2)
    shared = MtcnnDetector(FacesConfig(), max_faces=8, workers=workers).detect(frames)
    workers.close()
    assert [len(faces) for faces in many] == [2, 2, 0, 2, 2, 2]
    pairs = [(one, many), (many[3:], some), (many, shared)]
    for left, right in [pair for two in pairs for pair in zip(*two, strict=True)]:
        for a, b in zip(left, right, strict=True):
            np.testing.assert_allclose(a.xyxy, b.xyxy, atol=0.01)
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.01)
            assert a.probability == pytest.approx(b.probability, abs=1e-4)


def test_the_stages_joined_here_equal_those_of_facenet_pytorch(detector: MtcnnDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    frames = np.stack(
        [
            scene(360, 640, [(portrait(), 40, 60), (stranger(), 340, 30)]),
            noise,
            scene(360, 640, [(portrait(), 384, 104)]),
        ]
    )
    facenet = importlib.import_module("facenet_pytorch")
    reference = facenet.MTCNN(keep_all=True, select_largest=False, thresholds=[0.6, 0.7, 0.9])
    boxes, probabilities, points = reference.detect(frames, landmarks=True)
    assert sum(0 if found is None else len(found) for found in boxes) >= 3
    for i, faces in enumerate(detector.detect(list(frames))):
        expected = 0 if boxes[i] is None else len(boxes[i])
        assert len(faces) == expected
        order = np.argsort(-np.asarray(probabilities[i], dtype=float)) if expected else []
        for face, j in zip(faces, order, strict=True):
            clipped = np.clip(np.asarray(boxes[i][j], float), 0, (640, 360, 640, 360))
            np.testing.assert_allclose(face.xyxy, clipped, atol=0.01)
            np.testing.assert_allclose(face.landmarks, points[i][j].astype(float), atol=0.01)
            assert face.probability == pytest.approx(float(probabilities[i][j]), abs=1e-4)


def test_candidates_outside_the_frame_are_dropped_not_fatal(
    detector: MtcnnDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """facenet-pytorch's own loop fails on these: its networks see fewer boxes than it counts."""
    propose = detector._propose

    def with_strays(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes, owners = propose(images)
        strays = torch.tensor(
            [[-90.0, -90, -40, -40, 0.9], [700, 10, 760, 70, 0.9], [10, 400, 60, 450, 0.9]]
        )
        return torch.cat([strays, boxes]), torch.cat([torch.zeros(3, dtype=torch.int64), owners])

    monkeypatch.setattr(detector, "_propose", with_strays)
    found = detector.detect([scene(360, 640, [(portrait(), 40, 60)])])
    assert [len(faces) for faces in found] == [1]


def test_the_most_probable_faces_are_kept() -> None:
    frame = scene(360, 640, [(portrait(), 20, 50), (stranger(), 340, 50)])
    everyone = MtcnnDetector(FacesConfig(), max_faces=8).detect([frame])[0]
    one = MtcnnDetector(FacesConfig(), max_faces=1).detect([frame])[0]
    assert len(everyone) == 2
    assert everyone[0].probability >= everyone[1].probability
    assert [face.probability for face in one] == [everyone[0].probability]


def test_weights_are_those_of_the_wheel_and_no_pickle_and_no_network_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = torch.load

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read, or the network used")

    with monkeypatch.context() as patch:
        for target, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
            patch.setattr(target, name, refuse)
        patch.setattr(socket.socket, "connect", refuse)
        detector = MtcnnDetector(FacesConfig(), max_faces=1)
    folder = Path(str(importlib.import_module("facenet_pytorch").__file__)).parent / "data"
    for stage in ("pnet", "rnet", "onet"):
        mine: dict[str, torch.Tensor] = getattr(detector, f"_{stage}").state_dict()
        theirs = load(folder / f"{stage}.pt", weights_only=True)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_compiler_is_not_imported_and_still_works_afterwards() -> None:
    """torchvision asks for it at import; a scan must not wait for that."""
    program = """
import sys, torch
from forensics.config import FacesConfig
from forensics.faces import MtcnnDetector
MtcnnDetector(FacesConfig(), max_faces=1)
assert not any(name.startswith("torch._dynamo") for name in sys.modules)
import torchvision
torch.use_deterministic_algorithms(True)  # the case in which roi_align asks
maps, boxes = torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]
assert torchvision.ops.roi_align(maps, boxes, 2).eq(1).all()
import torch._dynamo
assert torch._dynamo.utils.is_compile_supported("cpu") in (True, False)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_boxes_are_scaled_clipped_sorted_and_broken_ones_dropped() -> None:
    boxes = np.array(
        [
            [10, 10, 20, 20, 0.95],
            [-5, -5, 30, 30, 0.99],
            [90, 10, 120, 20, 0.95],
            [50, 50, 50, 60, 0.99],  # no width
            [60, 60, 50, 50, 0.99],  # inside out
            [200, 10, 220, 30, 0.99],  # outside
            [np.nan, 0, 10, 10, 0.99],
            [0, 0, 10, np.inf, 0.99],
        ],
        dtype=np.float32,
    )
    points = np.full((len(boxes), 5, 2), 15, np.float32)
    faces = to_faces(boxes, points, (100, 100), (200, 400))
    assert [face.xyxy.tolist() for face in faces] == [
        [0, 0, 120, 60],
        [40, 20, 80, 40],
        [360, 20, 400, 40],
    ]
    assert faces[0].landmarks.tolist() == [[60, 30]] * 5


def test_no_boxes_give_no_faces() -> None:
    nothing = np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)
    assert to_faces(*nothing, (10, 10), (20, 20)) == []
