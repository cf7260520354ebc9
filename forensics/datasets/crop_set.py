"""Cut wide face crops out of a labelled collection once, so that training reads small images.

The crops are cut by the functions that scanning uses (`faces`, `crops`), only wider, so that
training can vary the margin. Input is a manifest CSV with the columns path, label, kind, dataset,
method, group, split; output is one folder of JPEG crops and `crops.csv`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.config import Limits, SamplingConfig
from forensics.crops import cut, picture_area, square_box
from forensics.errors import ManifestError
from forensics.faces import FaceDetector
from forensics.sampling import sample_times
from forensics.structures import Face
from forensics.video import open_video
from forensics.whole_file import whole_file

WIDE_MARGIN = 1.9  # leaves room to vary a 1.3 crop by shift, scale and rotation
WIDE_SIZE = 320  # most faces of the pack are smaller than this at that margin
COLUMNS = ("crop", "path", "label", "kind", "dataset", "method", "group", "split", "box", "points")

Row = dict[str, str]


def read_manifest(path: Path) -> list[Row]:
    """The rows of a manifest. Raises ManifestError when it is missing or lacks a column."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ManifestError(f"{path}: the manifest cannot be read: {error.strerror}") from error
    needed = {"path", "label", "kind", "dataset", "method", "group", "split"}
    missing = needed - set(rows[0] if rows else ())
    if missing:
        raise ManifestError(f"{path}: the manifest lacks {', '.join(sorted(missing))}")
    return rows


def extract(
    rows: list[Row],
    root: Path,
    out: Path,
    detector: FaceDetector,
    *,
    frames: int,
    on_file: Callable[[str, int], None],
) -> None:
    """Write `out`/crops.csv and all crops. `on_file` hears path and number of crops."""
    out.mkdir(parents=True, exist_ok=True)
    written: list[Row] = []
    for number, row in enumerate(rows):
        crops = list(_crops_of(row, root, detector, frames))
        for position, (crop, box, points) in enumerate(crops):
            name = f"{number:05d}_{position:02d}.jpg"
            bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
            # 98 and no chroma subsampling: the crop's own compression must not drown the video's.
            options = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
            cv2.imwrite(str(out / name), bgr, options)
            written.append(
                {k: row[k] for k in COLUMNS if k in row}
                | {"crop": name, "box": _numbers(box), "points": _numbers(points)}
            )
        on_file(row["path"], len(crops))
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # DictWriter's type cannot be named before Python 3.12
    writer.writerow(COLUMNS)
    writer.writerows([row[name] for name in COLUMNS] for row in written)
    with whole_file(out / "crops.csv") as file:
        file.write(text.getvalue().encode())


def _numbers(values: NDArray[np.float32]) -> str:
    return " ".join(f"{value:.1f}" for value in np.ravel(values))


Crop = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]


def _crops_of(
    row: Mapping[str, str], root: Path, detector: FaceDetector, frames: int
) -> Iterator[Crop]:
    """Wide crop (S, S, 3), box (4,) and landmarks (5, 2) of each frame's largest face."""
    path = root / row["path"]
    with open_video(path, decoder="pyav", limits=Limits()) as session:
        info = session.info
        times = sample_times(
            SamplingConfig(frames=frames), info.first_s, info.last_s, info.listed_frames
        )
        pixels = [frame.pixels for frame in session.frames(times)]
    for picture, faces in zip(pixels, detector.detect(pixels), strict=True):
        if faces:
            yield _wide_crop(picture, max(faces, key=lambda face: face.size_px))


def _wide_crop(picture: NDArray[np.uint8], face: Face) -> Crop:
    window = square_box(face.xyxy, WIDE_MARGIN, picture_area(picture))
    origin = np.array(window[:2], dtype=np.float32)
    # Never enlarge a crop: the network sees interpolation as a trace.
    size = min(WIDE_SIZE, window[2] - window[0])
    scale = size / (window[2] - window[0])
    box = (face.xyxy - np.tile(origin, 2)) * np.float32(scale)
    return cut(picture, window, size), box, (face.landmarks - origin) * np.float32(scale)
