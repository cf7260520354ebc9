"""Which crops a batch shows. Batch n of epoch e follows from (seed, e, n) alone.

So a run resumes at any place, and neither the number of processes nor that of loader workers
changes what is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forensics.errors import ConfigError, ManifestError

Rows = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]
# Rows, or the parts they are divided into: a draw takes one part after the other, all alike.
Tree = Rows | list["Tree"]


class Draw(NamedTuple):
    """One image, or a pair, of a batch: `row` of the store; `place` is unique in the epoch."""

    epoch: int
    place: int
    row: int
    pair: bool


class Sampler:
    """Draws batches of `batch` images, `pairs` of them times two as pairs of a real and its fake.

    `columns` name what to spread the draws over evenly, outermost first; within the last a video is
    drawn, then one of its crops, with replacement: neither a large data set nor a long video
    dominates. With `class` first each batch has as many reals as fakes. Without columns every
    crop comes once an epoch, in random order.
    """

    def __init__(
        self,
        rows: Rows,
        labels: Codes,
        columns: Mapping[str, Codes],
        videos: Codes,
        *,
        batch: int,
        pairs: int,
        seed: int,
        blendable: NDArray[np.bool_] | None = None,
    ) -> None:
        """`rows` (N,) are the rows of the store to draw from; `labels` (1 is fake), `videos` and
        each of `columns` describe them by one number each (N,). Pairs are made of `blendable`
        reals (N,), by default of all. Raises ManifestError for a class without crops."""
        self._batch, self._pairs, self._singles = batch, pairs, batch - 2 * pairs
        self._seed, self._rows = seed, rows
        self.steps = max(1, len(rows) // batch)  # of an epoch
        fake = labels == 1
        for wanted, count in (("real", int((~fake).sum())), ("fake", int(fake.sum()))):
            if count == 0 and (wanted == "real" or self._singles):
                raise ManifestError(_empty_class(wanted))
        keys = [columns[name] for name in columns if name != "class"]
        keys.append(videos)
        at_class = list(columns).index("class") if "class" in columns else None
        blended = np.flatnonzero(~fake if blendable is None else ~fake & blendable)
        if pairs and not len(blended):
            raise ManifestError(
                "no real of the training split has landmarks, which self-blended fakes need; "
                "extract the crops from videos, or train with --set data.self_blended=0"
            )
        self._blended = _divide(blended, keys)
        self._halves: list[Tree] = []
        self._all: Tree | None = None
        if at_class == 0 and self._singles:
            self._halves = [_divide(np.flatnonzero(part), keys) for part in (~fake, fake)]
        elif columns:
            if at_class is not None:
                keys.insert(at_class, labels)
            self._all = _divide(np.arange(len(rows)), keys)
        self._shuffled: tuple[int, Rows] | None = None

    def draws(self, epoch: int, number: int) -> list[Draw]:
        """The pairs, then the single images, of batch `number` of `epoch`."""
        rng = np.random.default_rng((self._seed, epoch, number))
        first = number * (self._pairs + self._singles)
        chosen = [(_draw(self._blended, rng), True) for _ in range(self._pairs)]
        for slot in range(self._singles):
            chosen.append((self._single(epoch, number, slot, rng), False))
        return [
            Draw(epoch, first + place, int(self._rows[index]), pair)
            for place, (index, pair) in enumerate(chosen)
        ]

    def _single(self, epoch: int, number: int, slot: int, rng: np.random.Generator) -> int:
        if self._halves:
            return _draw(self._halves[(number + slot) % 2], rng)
        if self._all is not None:
            return _draw(self._all, rng)
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._rows))
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
            pairs = [draw for draw in draws if draw.pair]
            singles = [draw for draw in draws if not draw.pair]
            yield pairs[self._rank :: self._world] + singles[self._rank :: self._world]


def divided(batch: int, self_blended: float, world: int) -> int:
    """How many pairs a batch of `batch` images holds.

    Raises ConfigError where pairs and single images cannot be shared out evenly among `world`
    processes.
    """
    pairs = round(batch * self_blended / 2)
    singles = batch - 2 * pairs
    if pairs % world or singles % world:
        raise ConfigError(
            f"data.batch {batch} makes {pairs} pairs and {singles} single images, which {world} "
            "processes cannot share evenly; change data.batch or data.self_blended"
        )
    return pairs


def _empty_class(label: str) -> str:
    advice = (
        "add some, or train on self-blended fakes alone: --set data.self_blended=1"
        if label == "fake"
        else "add some: a detector learns nothing from fakes alone"
    )
    return f"the training split holds no {label}s; {advice}"


def _divide(rows: Rows, keys: Sequence[Codes]) -> Tree:
    if not keys:
        return rows
    order = rows[np.argsort(keys[0][rows], kind="stable")]
    borders = np.flatnonzero(np.diff(keys[0][order])) + 1
    return [_divide(part, keys[1:]) for part in np.split(order, borders)]


def _draw(tree: Tree, rng: np.random.Generator) -> int:
    while isinstance(tree, list):
        tree = tree[int(rng.integers(len(tree)))]
    return int(tree[int(rng.integers(len(tree)))])
