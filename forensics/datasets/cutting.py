"""From one row of a manifest to its crops, by the code that scans: decode, detect, track, cut.

A video's crops are cut wider than a scan's, so that training can shift, turn and scale them. Rows
of pictures are cut already: they pass through byte for byte, and a detector only adds the
landmarks it finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.config import ExtractionConfig, FacesConfig, Limits, SamplingConfig
from forensics.crops import cut, picture_area, square_box
from forensics.datasets.adapters.archive import folder_contents
from forensics.datasets.adapters.tree import entries, is_picture
from forensics.datasets.manifest import ASIDE, Sample
from forensics.datasets.shard_index import Crop, Outcome
from forensics.datasets.shards import decode
from forensics.errors import ManifestError, MediaError
from forensics.observations import batches, observe
from forensics.sampling import sample_times
from forensics.structures import Face, Frame, Observation
from forensics.tracking import link
from forensics.video import open_video, prestart

if TYPE_CHECKING:
    from forensics.faces import FaceDetector

# What tracking compares: crops as the scan cuts them.
_SCAN_MARGIN, _SCAN_SIZE = 1.3, 224
_CROP_BYTES = 2**29  # of one video: 3000 faces. A crowd in many frames would be gigabytes.
_PICTURE_BYTES = 32 * 2**20  # of one crop that was cut elsewhere
_LARGEST_PICTURE = 2048  # px: anything larger is a photograph and not a crop of a face
_SEQUENCE_BYTES = 2**29

_Key = tuple[int, bytes]


def cut_row(
    row: int, sample: Sample, folder: Path, config: ExtractionConfig, detector: FaceDetector
) -> Outcome:
    """The crops of one row, ordered by person and time; or the reason why there are none.

    `folder` is the manifest's. Whatever is wrong with a file ends in an Outcome: it must not stop
    the others. Raises OSError and MemoryError, which the next file would meet, too.
    """
    path = folder / sample.path
    if sample.split == ASIDE:
        detail = "it shows people of more than one split"
        return Outcome(row=row, sample=sample, reason="aside", detail=detail)
    try:
        if sample.kind == "video":
            crops, frames, coverage = _cut_video(path, config, detector)
            if not crops:
                detail = f"no face in {frames} frames"
                return Outcome(
                    row=row, sample=sample, reason="no_face", detail=detail, coverage=coverage
                )
            return Outcome(row=row, sample=sample, crops=tuple(crops), coverage=coverage)
        pictures = _pictures(path, sample, config.frames)
        return Outcome(row=row, sample=sample, crops=tuple(_pass_through(pictures, detector)))
    except MediaError as error:
        detail = str(error).removeprefix(f"{path}: ")
        return Outcome(row=row, sample=sample, reason=error.label, detail=detail)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        detail = f"unexpected {type(error).__name__}: {error}; please report this"
        return Outcome(row=row, sample=sample, reason="failed", detail=" ".join(detail.split()))


def _cut_video(
    path: Path, config: ExtractionConfig, detector: FaceDetector
) -> tuple[list[Crop], int, float]:
    """Crops, how many frames were looked at, and how much could be decoded (0..1)."""
    seen: list[Observation] = []
    wide: dict[_Key, Crop] = {}
    frames = size = 0
    with open_video(path, limits=Limits()) as session:
        prestart("pyav")  # the next row's child loads its library meanwhile
        info = session.info
        sampling = SamplingConfig(frames=config.frames)
        times = sample_times(sampling, info.first_s, info.last_s, info.listed_frames)
        for batch in batches(session.frames(times), FacesConfig().batch_frames):
            faces = detector.detect([frame.pixels for frame in batch])
            seen += observe(batch, faces, margin=_SCAN_MARGIN, size=_SCAN_SIZE)
            for frame, found in zip(batch, faces, strict=True):
                for face, crop in _wide(frame, found, config):
                    wide[_key(frame.index, face.xyxy)] = crop
                    size += len(crop.encoded) + 3 * _SCAN_SIZE**2
            frames += len(batch)
            if size > _CROP_BYTES:
                raise MediaError(
                    "too many faces in too many frames: ask for fewer frames",
                    label="limit_exceeded",
                )
        coverage = session.stats.coverage
    if not frames:
        raise MediaError("no frame could be decoded", label="undecodable")
    crops: list[Crop] = []
    for track in link(seen):
        for index, box in zip(track.frame_indices.tolist(), track.boxes, strict=True):
            crop = wide[_key(index, box)]
            crops.append(_of_track(crop, track.id))
    return crops, frames, coverage


def _key(frame: int, box: NDArray[np.float32]) -> _Key:
    return frame, box.astype(np.float32).tobytes()


def _wide(frame: Frame, found: list[Face], config: ExtractionConfig) -> Iterator[tuple[Face, Crop]]:
    area = picture_area(frame.pixels) if found else (0, 0, 0, 0)
    for face in found:
        window = square_box(face.xyxy, config.margin, area)
        side = window[2] - window[0]
        # Never enlarged: a network sees interpolation as a trace.
        size = min(config.size, side)
        origin, scale = np.array(window[:2], dtype=np.float32), np.float32(size / side)
        yield (
            face,
            Crop(
                encoded=encode(cut(frame.pixels, window, size), config),
                suffix=config.picture,
                track=0,
                time_s=frame.time_s,
                box_xyxy=(face.xyxy - np.tile(origin, 2)) * scale,
                frame_xyxy=face.xyxy,
                landmarks=(face.landmarks - origin) * scale,
            ),
        )


def encode(pixels: NDArray[np.uint8], config: ExtractionConfig) -> bytes:
    """(H, W, 3) uint8 RGB as JPEG without chroma subsampling, or as PNG."""
    options: list[int] = []
    if config.picture == "jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, config.quality]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(f".{config.picture}", bgr, options)[1].tobytes()


def _of_track(crop: Crop, track: int) -> Crop:
    return Crop(
        encoded=crop.encoded,
        suffix=crop.suffix,
        track=track,
        time_s=crop.time_s,
        box_xyxy=crop.box_xyxy,
        frame_xyxy=crop.frame_xyxy,
        landmarks=crop.landmarks,
    )


def _pictures(path: Path, sample: Sample, most: int) -> list[tuple[int, bytes]]:
    """Number in the sequence and content of at most `most` pictures, evenly spaced."""
    try:
        if sample.kind == "crop":
            return [(0, _content(path))]
        if sample.member:
            found = dict(folder_contents(path, sample.member, _SEQUENCE_BYTES))
            names = sorted((name for name in found if is_picture(Path(name))), key=_by_number)
            return [(i, found[names[i]]) for i in _spread(len(names), most)]
        files = sorted(filter(is_picture, entries(path)), key=lambda file: _by_number(file.name))
        return [(i, _content(files[i])) for i in _spread(len(files), most)]
    except (OSError, ManifestError) as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
        raise MediaError(f"cannot be read: {reason}", label="undecodable") from error


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer
        raise MediaError("is not a regular file", label="undecodable")
    with path.open("rb") as file:
        return file.read(_PICTURE_BYTES + 1)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts 9.png before 10.png."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spaced, first and last included."""
    if not count:
        raise MediaError("no picture in it", label="undecodable")
    return np.unique(np.rint(np.linspace(0, count - 1, min(most, count))).astype(int)).tolist()


def _pass_through(pictures: list[tuple[int, bytes]], detector: FaceDetector) -> Iterator[Crop]:
    """Pictures as they are; the largest face's box and landmarks where a face is found.

    Their rate is unknown, so `time_s` is the number in the sequence.
    """
    decoded = [_decoded(content) for _, content in pictures]
    for (number, content), pixels, faces in zip(
        pictures, decoded, detector.detect(decoded), strict=True
    ):
        height, width = pixels.shape[:2]
        face = max(faces, key=lambda each: each.size_px, default=None)
        box = np.array([0, 0, width, height], np.float32) if face is None else face.xyxy
        suffix = "jpg" if content[:3] == b"\xff\xd8\xff" else "png"
        if suffix == "png" and content[:4] != b"\x89PNG":
            content = encode(pixels, ExtractionConfig(picture="png"))  # WebP and BMP, losslessly
        yield Crop(
            encoded=content,
            suffix=suffix,
            track=0,
            time_s=float(number),
            box_xyxy=box,
            frame_xyxy=box,
            landmarks=np.full((5, 2), np.nan, np.float32) if face is None else face.landmarks,
        )


def _decoded(content: bytes) -> NDArray[np.uint8]:
    if len(content) > _PICTURE_BYTES:
        raise MediaError("a picture of more than 32 MB is no crop", label="limit_exceeded")
    pixels = decode(content)
    if pixels is None:
        raise MediaError("not a picture that can be read", label="undecodable")
    if max(pixels.shape[:2]) > _LARGEST_PICTURE:
        raise MediaError(
            f"a picture of more than {_LARGEST_PICTURE} px is no crop; let its kind be `video`",
            label="limit_exceeded",
        )
    return pixels
