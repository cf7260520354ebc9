"""Which crops a batch shows. Batch n of epoch e follows from (seed, e, n) alone.

So a run resumes at any place, and neither the number of processes nor that of loader workers
changes what is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

from forensics.errors import ConfigError, ManifestError

Rows = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]
Chosen = NDArray[np.bool_]
Kind = Literal["single", "blended", "matched"]


class Branch(NamedTuple):
    """Parts of some rows, and the shares of the draws up to and with each part, the last 1."""

    parts: list[Tree]
    shares: NDArray[np.float64]


Tree = Union[Rows, Branch]  # noqa: UP007 (`|` does not take a name in quotes)


class Draw(NamedTuple):
    """One image, or a pair, of a batch: `row` of the store; `place` is unique in the epoch.

    `kind`: the row alone, a real with a fake blended from it, or a fake with its original.
    """

    epoch: int
    place: int
    row: int
    kind: Kind


class Sampler:
    """Draws batches of `batch` images, among them `blended` pairs of a real and its self-blended
    fake and `matched` pairs of a fake and its original; the rest are single images.

    `columns` name what to spread the draws over, outermost first: evenly, or by the number of
    videos to the `power`; within the last a video is drawn, then one of its crops, with
    replacement: neither a large data set nor a long video dominates. With `class` first each batch
    has as many reals as fakes among its single images. Without columns every crop comes once an
    epoch, in random order.
    """

    def __init__(
        self,
        rows: Rows,
        labels: Codes,
        columns: Mapping[str, Codes],
        videos: Codes,
        *,
        batch: int,
        seed: int,
        blended: int = 0,
        matched: int = 0,
        blendable: Chosen | None = None,
        matchable: Chosen | None = None,
        single: Chosen | None = None,
        power: float = 0.0,
    ) -> None:
        """`rows` (N,) are the rows of the store to draw from; `labels` (1 is fake), `videos` and
        each of `columns` describe them by one number each (N,). `blendable` (N,) are the rows that
        self-blended pairs are made of, where they are real, `matchable` (N,) those with a known
        original, where they are fake, `single` (N,) those to be shown alone; by default all.
        Raises ManifestError for a class without crops."""
        self._blended, self._matched = blended, matched
        self._singles = batch - 2 * (blended + matched)
        self._seed, self._rows = seed, rows
        self.steps = max(1, len(rows) // batch)  # of an epoch
        fake = labels == 1
        alone = np.ones(len(rows), np.bool_) if single is None else single
        for wanted, count in (("real", int((~fake).sum())), ("fake", int(fake.sum()))):
            if count == 0 and (wanted == "real" or self._singles or matched):
                raise ManifestError(_empty_class(wanted))
        if self._singles and not ((alone & fake).any() and (alone & ~fake).any()):
            raise ManifestError(
                "no data set of the training split has both classes; train with --set "
                "data.one_sided=all"
            )
        keys = [columns[name] for name in columns if name != "class"]
        keys.append(videos)
        at_class = list(columns).index("class") if "class" in columns else None
        reals = np.flatnonzero(~fake if blendable is None else ~fake & blendable)
        if blended and not len(reals):
            raise ManifestError(
                "no real of the training split has landmarks, which self-blended fakes need; "
                "extract the crops from videos, or train with --set data.self_blended=0"
            )
        fakes = np.flatnonzero(fake if matchable is None else fake & matchable)
        if matched and not len(fakes):
            raise ManifestError(
                "no fake of the training split has an original that shares its source or group, at "
                "the same moment; train with --set data.matched=0"
            )
        self._reals, self._fakes = (_divide(part, keys, power) for part in (reals, fakes))
        self._halves: list[Tree] = []
        self._all: Tree | None = None
        if at_class == 0 and self._singles:
            self._halves = [
                _divide(np.flatnonzero(alone & part), keys, power) for part in (~fake, fake)
            ]
        elif columns:
            if at_class is not None:
                keys.insert(at_class, labels)
            self._all = _divide(np.flatnonzero(alone), keys, power)
        self._alone = np.flatnonzero(alone)
        self._shuffled: tuple[int, Rows] | None = None

    def draws(self, epoch: int, number: int) -> list[Draw]:
        """The pairs, then the single images, of batch `number` of `epoch`."""
        rng = np.random.default_rng((self._seed, epoch, number))
        first = number * (self._blended + self._matched + self._singles)
        chosen: list[tuple[int, Kind]] = []
        for _ in range(self._blended):
            chosen.append((_draw(self._reals, rng), "blended"))
        for _ in range(self._matched):
            chosen.append((_draw(self._fakes, rng), "matched"))
        for slot in range(self._singles):
            chosen.append((self._single(epoch, number, slot, rng), "single"))
        return [
            Draw(epoch, first + place, int(self._rows[index]), kind)
            for place, (index, kind) in enumerate(chosen)
        ]

    def real(self, rng: np.random.Generator) -> int:
        """A row that a self-blended pair could be made of, drawn as for one."""
        return int(self._rows[_draw(self._reals, rng)])

    def _single(self, epoch: int, number: int, slot: int, rng: np.random.Generator) -> int:
        if self._halves:
            return _draw(self._halves[(number + slot) % 2], rng)
        if self._all is not None:
            return _draw(self._all, rng)
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._alone)
            self._shuffled = epoch, order
        order = self._shuffled[1]
        return int(order[(number * self._singles + slot) % len(order)])


class Batches:
    """The part of each batch that is this process's, from a place in the run on: iterable."""

    def __init__(self, sampler: Sampler, *, start: int, end: int, rank: int, world: int) -> None:
        """Batches `start` to `end` - 1, counted over all epochs."""
        self._sampler, self._rank, self._world = sampler, rank, world
        self._start, self._end = start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in range(self._start, self._end):
            draws = self._sampler.draws(*divmod(batch, self._sampler.steps))
            pairs = [draw for draw in draws if draw.kind != "single"]
            singles = [draw for draw in draws if draw.kind == "single"]
            yield pairs[self._rank :: self._world] + singles[self._rank :: self._world]


def divided(batch: int, self_blended: float, matched: float, world: int) -> tuple[int, int]:
    """How many self-blended and how many matched pairs a batch of `batch` images holds.

    Raises ConfigError where pairs and single images cannot be shared out evenly among `world`
    processes.
    """
    blended = round(batch * self_blended / 2)
    pairs = min(blended + round(batch * matched / 2), batch // 2)
    singles = batch - 2 * pairs
    if pairs % world or singles % world:
        raise ConfigError(
            f"data.batch {batch} makes {pairs} pairs and {singles} single images, which {world} "
            "processes cannot share evenly; change data.batch, data.self_blended or data.matched"
        )
    return blended, pairs - blended


def _empty_class(label: str) -> str:
    advice = (
        "add some, or train on self-blended fakes alone: --set data.self_blended=1"
        if label == "fake"
        else "add some: a detector learns nothing from fakes alone"
    )
    return f"the training split holds no {label}s; {advice}"


def _divide(rows: Rows, keys: Sequence[Codes], power: float) -> Tree:
    """A tree of `rows` by `keys`, of which the last are the videos."""
    if not keys:
        return rows
    order = rows[np.argsort(keys[0][rows], kind="stable")]
    borders = np.flatnonzero(np.diff(keys[0][order])) + 1
    parts = np.split(order, borders)
    shares = np.array([1.0 if len(keys) == 1 else len(np.unique(keys[-1][p])) for p in parts])
    shares = np.cumsum(shares**power)
    return Branch([_divide(part, keys[1:], power) for part in parts], shares / shares[-1])


def _draw(tree: Tree, rng: np.random.Generator) -> int:
    while isinstance(tree, Branch):
        tree = tree.parts[int(np.searchsorted(tree.shares, rng.random(), side="right"))]
    return int(tree[int(rng.integers(len(tree)))])
