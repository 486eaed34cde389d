"""State-only pairs read while training, for more of them than memory or disk holds."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.overlap import Overlap, of_training
from swirl_lightning.data.reading import Mapping, Reading
from swirl_lightning.data.rows import Rows
from swirl_lightning.data.sources import Item, PathLike, items
from swirl_lightning.types import UnlabelledPair


class PairStream:
    """An endless row of state-only pairs, numbered from 0: pass after pass over the source, each in an order of its own.

    A number always means the same pair, on every rank and in a resumed run: every rank reads the whole stream and keeps its
    share of a global batch, since reading a pair costs nothing beside a step on it. Going back reads again from the start.

    Args:
        path: as for :func:`read_transitions`; rows of steps must lie together by episode and in order.
        mapping: how rows become pairs; actions are not read.
        overlap: tells which pairs are passed over: those that warm-up and evaluation know.
        beside: further pairs of every pass: those of ``data.path`` that keep no label.
        seed: of the order.
        buffer: pairs among which the next one is drawn; files are shuffled as well. 1 keeps the order of the source.
        window: pairs that stay reachable behind the last one.
    """

    def __init__(
        self,
        path: PathLike,
        mapping: Mapping,
        *,
        overlap: Overlap | None = None,
        beside: Sequence[UnlabelledPair] = (),
        seed: int = 0,
        buffer: int = 1024,
        window: int,
    ) -> None:
        if buffer < 1:
            raise ValueError(f"data.stream_buffer must be at least 1, got {buffer}")
        if mapping.actions:
            raise ValueError("a stream of state-only pairs reads no actions: Mapping(..., actions=False)")
        self.path, self.mapping, self.overlap, self.beside = path, mapping, overlap, beside
        self.seed, self.buffer, self.window = seed, buffer, window
        self._items: list[Item] | None = None
        self._restart()

    def __getitem__(self, number: int) -> UnlabelledPair:
        if number < self._read - len(self._last):
            self._restart()
        while self._read <= number:
            self._last.append(next(self._pairs))
            self._read += 1
        return self._last[number - self._read + len(self._last)]

    def check(self) -> None:
        """Reads the beginning of every file, so that what is wrong with them shows before training.

        Raises:
            FileNotFoundError: if there is no such file.
            DataError: naming file, row and field of what is wrong.
        """
        reading = Reading(self.mapping)
        for item in self._parts():
            reading.check(item)

    def first(self, count: int) -> list[UnlabelledPair]:
        """The first pairs of a pass in the order of the source: fewer, where it holds no more."""
        return list(islice(self._pass(self._parts(), Reading(self.mapping)), count))

    def _parts(self) -> list[Item]:
        if self._items is None:
            self._items = items(self.path, streaming=True, option=self.mapping.path_option)[0]
        return list(self._items)

    def _restart(self) -> None:
        self._last: deque[UnlabelledPair] = deque(maxlen=self.window)
        self._read = 0
        self._pairs = self._passes()

    def _passes(self) -> Iterator[UnlabelledPair]:
        number = 0
        while True:
            rng, reading = random.Random(f"{self.seed}/{number}"), Reading(self.mapping)
            parts = self._parts()
            if self.buffer > 1:
                rng.shuffle(parts)
            used = 0
            for pair in _shuffled(self._pass(parts, reading), self.buffer, rng):
                used += 1
                yield pair
            rank_zero_info(f"{self.path}: pass {number + 1} over the stream ended after {used:,} pairs; {reading.report}")
            if not used:
                raise DataError(f"data.state_only: {self.path} holds no pair to train on; {reading.report}")
            number += 1

    def _pass(self, parts: Sequence[Item], reading: Reading) -> Iterator[UnlabelledPair]:
        yield from self.beside
        for item in parts:
            for table in _pairs(item, reading):
                table = of_training(table, reading.report.counts)
                if self.overlap is not None:
                    table = self.overlap.new(table, reading.report.counts, named=reading.own_episodes)
                if table.column("step").null_count:
                    table = table.set_column(table.column_names.index("step"), "step", table.column("row"))
                yield from Rows(UnlabelledPair, table)


def _pairs(item: Item, reading: Reading) -> Iterator[Any]:
    """Pairs of an item in its own order."""
    pairing = None
    for table in reading.tables(item):
        if "done" in table.column_names:
            pairing = pairing or reading.pairing()
            yield reading.checked(pairing.feed(table))
        else:
            yield table
    if pairing is not None:
        pairing.close()


def _shuffled(items: Iterable[UnlabelledPair], buffer: int, rng: random.Random) -> Iterator[UnlabelledPair]:
    """Draws each item from the next ``buffer`` ones."""
    held: list[UnlabelledPair] = []
    for item in items:
        held.append(item)
        if len(held) == buffer:
            at = rng.randrange(buffer)
            held[at], held[-1] = held[-1], held[at]
            yield held.pop()
    rng.shuffle(held)
    yield from held
