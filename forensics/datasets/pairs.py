"""Training pairs: a real and a fake crop that share as much of their source as possible.

Both halves come from the same footage: self-blended pairs from one photograph or frame, natural
ones from FaceForensics++, where the target of each fake is there as it was. Other fakes have no
such partner, and who is in the picture would be answer enough (docs/log.md): they and the reals
beside them are cut into tiles and shuffled, which leaves texture to learn from. Reals of other
sources also stand against FaceForensics++ fakes, or recordings unlike those of FaceForensics++
would never be seen to be real.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from forensics.datasets.augment import jittered_cut, pipeline, recoded, shuffled
from forensics.datasets.self_blend import self_blend
from forensics.errors import ManifestError

Row = dict[str, str]
# Shares of the pairs; the rest is natural.
_SELF_BLENDED, _SHUFFLED, _ACROSS = 0.4, 0.15, 0.2
_ALSO_SHUFFLED = 0.15  # of the other pairs: a shuffled picture must not mean texture alone
_SAME_FOOTAGE = ("FaceForensics++", "FaceForensics++ crops")
PHOTOGRAPHS = ("All-Age-Faces", "SCUT-FBP5500")


def numbers(text: str) -> NDArray[np.float32]:
    return np.array(text.split(), dtype=np.float32)


class Pairs(Dataset[Tensor]):
    """`length` pairs (2, S, S, 3) uint8: real, then fake. Pair i depends on (seed, i) alone.

    Sources are drawn with equal weight first, then a video, then a frame: one long or well-filled
    source does not dominate.
    """

    def __init__(self, folder: Path, rows: list[Row], *, size: int, length: int, seed: int) -> None:
        self._folder, self._size, self._length, self._seed = folder, size, length, seed
        reals = [row for row in rows if row["label"] == "real"]
        fakes = [row for row in rows if row["label"] == "fake"]
        self._blend_sources = _by_source(reals, photographs=True)
        self._reals_of_group: dict[str, list[list[Row]]] = defaultdict(list)
        for videos in _by_source(reals, photographs=False).values():
            for video in videos:
                self._reals_of_group[video[0]["group"]].append(video)
        self._loose_reals = [
            video
            for videos in _by_source(reals, photographs=False).values()
            for video in videos
            if video[0]["dataset"] not in _SAME_FOOTAGE
        ]
        by_target = [row for row in fakes if row["dataset"] in _SAME_FOOTAGE]
        by_target = [row for row in by_target if row["group"] in self._reals_of_group]
        loose = [row for row in fakes if row["dataset"] not in _SAME_FOOTAGE]
        self._fake_sources = _by_source(by_target, photographs=False)
        self._loose_fakes = _by_source(loose if self._loose_reals else [], photographs=False)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng((self._seed, index))
        kind, shuffle = rng.random(), rng.random() < _ALSO_SHUFFLED
        loose = kind < _SHUFFLED and bool(self._loose_fakes)
        across = kind < _SHUFFLED + _ACROSS and bool(self._fake_sources and self._loose_reals)
        if loose or across:
            chosen = _draw(self._loose_fakes if loose else self._fake_sources, rng)
            shuffle = shuffle or loose
            video = self._loose_reals[int(rng.integers(len(self._loose_reals)))]
            partner = video[int(rng.integers(len(video)))]
            real, fake = self._read(partner), self._read(chosen)
            box, other_box = numbers(partner["box"]), numbers(chosen["box"])
        elif kind < _SHUFFLED + _ACROSS + _SELF_BLENDED or not self._fake_sources:
            row = _draw(self._blend_sources, rng)
            points = np.reshape(numbers(row["points"]), (5, 2))
            real, fake = self_blend(self._read(row), points, rng)
            box = other_box = numbers(row["box"])
        else:
            chosen = _draw(self._fake_sources, rng)
            videos = self._reals_of_group[chosen["group"]]
            target = [video for video in videos if _is_target(video[0], chosen)] or videos
            video = target[int(rng.integers(len(target)))]
            # The same moment, where both videos have it: they were sampled alike.
            same = [row for row in video if _moment(row) == _moment(chosen)] or video
            partner = same[int(rng.integers(len(same)))]
            real, fake = self._read(partner), self._read(chosen)
            box, other_box = numbers(partner["box"]), numbers(chosen["box"])
        pair = jittered_cut((real, fake), box, other_box, self._size, rng)
        pair = recoded(pair, rng)
        made = pipeline(int(rng.integers(2**31)))(image=pair[0], other=pair[1])
        both = np.stack([made["image"], made["other"]])
        if shuffle:
            grid = int(rng.integers(3, 7))
            both = np.stack([shuffled(half, grid, rng) for half in both])
        return torch.from_numpy(both)  # pyright: ignore[reportUnknownMemberType]

    def _read(self, row: Row) -> NDArray[np.uint8]:
        path = self._folder / row["crop"]
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ManifestError(f"{path}: the crop cannot be read; extract the crops again")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _is_target(real: Row, fake: Row) -> bool:
    """Whether a FaceForensics++ fake TARGET_SOURCE.mp4 was made from this video, equally coded."""
    real_path, fake_path = Path(real["path"]), Path(fake["path"])
    coding = real_path.parts[-3:-1]  # c23/videos
    return coding == fake_path.parts[-3:-1] and real_path.stem == fake_path.stem.split("_")[0]


def _moment(row: Row) -> str:
    """Which of a video's samples a crop is: NUMBER_MOMENT.jpg."""
    return Path(row["crop"]).stem.rpartition("_")[2]


def _by_source(rows: list[Row], *, photographs: bool) -> dict[str, list[list[Row]]]:
    """source -> videos -> rows. A source is a data set, and within a video set each method."""
    videos: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if photographs or row["dataset"] not in PHOTOGRAPHS:
            videos[row["path"]].append(row)
    sources: dict[str, list[list[Row]]] = defaultdict(list)
    for video in videos.values():
        first = video[0]
        name = "photographs" if first["dataset"] in PHOTOGRAPHS else first["dataset"]
        sources[f"{name}/{first['method']}" if first["kind"] == "video" else name].append(video)
    return dict(sources)


def _draw(sources: dict[str, list[list[Row]]], rng: np.random.Generator) -> Row:
    """A source by the cube root of its videos, then a video, then a frame."""
    names = list(sources)
    weights = np.cbrt([len(sources[name]) for name in names])
    videos = sources[names[int(rng.choice(len(names), p=weights / weights.sum()))]]
    video = videos[int(rng.integers(len(videos)))]
    return video[int(rng.integers(len(video)))]
