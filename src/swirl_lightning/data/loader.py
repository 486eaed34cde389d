"""The order in which a run sees its data: a function of seed and epoch, resumable at any batch, sharded over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import torch

from swirl_lightning.types import Batch, Transition, UnlabelledPair, seeded_generator

T = TypeVar("T")


T_co = TypeVar("T_co", covariant=True)


class Numbered(Protocol[T_co]):
    """What is reached by a number: pairs that were read already, or a stream of them."""

    def __getitem__(self, number: int, /) -> T_co: ...


def epoch_order(size: int, seed: int, epoch: int) -> list[int]:
    """A permutation of ``range(size)`` that depends on seed and epoch only."""
    order: list[int] = torch.randperm(size, generator=seeded_generator(seed, epoch)).tolist()
    return order


def balanced_shares(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Deals items out so that ranks have about equal work: the dearest first, each to the rank that has least so far.

    Args:
        costs: expected work of every item.
        ranks: number of shares.

    Returns:
        Items of every rank, in ascending order. Numbers of items differ by one at most; with equal costs, by turns.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks
    dearest = sorted(range(len(costs)), key=lambda item: -costs[item])
    for start in range(0, len(costs), ranks):
        least = sorted(range(ranks), key=loads.__getitem__)
        for rank, item in zip(least, dearest[start : start + ranks], strict=False):
            shares[rank].append(item)
            loads[rank] += costs[item]
    return [sorted(share) for share in shares]


class EpochLoader:
    """Batches of one epoch for one rank.

    A global batch is dealt out to the ranks, so that any number of them sees the same global batches. Where it does not divide
    (the last one may be smaller), some ranks get an item less, or none; every rank gets the same number of batches.

    Lightning saves and restores ``state_dict``: a run resumed in the same epoch goes on with the first batch that was not
    handed out, which there may be none of.

    Args:
        size: number of items.
        batch_size: of a global batch.
        make: turns the indices of this rank's share into a batch.
        order: indices in the order in which they are seen.
        cost: expected work of an item, by which ranks get equal shares; None deals by turns.
        epoch: of the run.
        rank: this process.
        world_size: number of processes.
        ahead: whether a batch names the pairs of the next one; the last one names none.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        make: Callable[[Sequence[int], int], Any],
        order: Sequence[int],
        *,
        cost: Callable[[int], float] | None = None,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        ahead: bool = False,
    ) -> None:
        self.size, self.batch_size, self.make, self.order, self.cost = size, batch_size, make, order, cost
        self.epoch, self.rank, self.world_size, self.ahead = epoch, rank, world_size, ahead
        self._handed_out = 0
        self._resume = False

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if not self._resume:
            self._handed_out = 0
        following: Any = None  # the batch that comes next, where this one names its pairs
        while self._handed_out < len(self):
            self._resume = False
            at = self._handed_out
            self._handed_out += 1
            batch, following = self.make(self._share(at), at) if following is None else following, None
            if self.ahead and at + 1 < len(self):
                following = self.make(self._share(at + 1), at + 1)
                batch = replace(batch, upcoming=following.unlabelled)
            yield batch

    def _share(self, batch: int) -> Sequence[int]:
        """Indices of this rank in a global batch."""
        whole = self.order[batch * self.batch_size : min((batch + 1) * self.batch_size, self.size)]
        if self.cost is None or self.world_size == 1:
            return whole[self.rank :: self.world_size]
        return [whole[place] for place in balanced_shares([self.cost(i) for i in whole], self.world_size)[self.rank]]

    def state_dict(self) -> dict[str, int]:
        """How many batches of which epoch were handed out, of which data."""
        return {"epoch": self.epoch, "handed_out": self._handed_out, "size": self.size, "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration go on after ``state``; that of another epoch is over, and says nothing about this one.

        Raises:
            ValueError: if the position belongs to other data or another batch size.
        """
        if state["epoch"] != self.epoch:
            return
        for name, now in (("size", self.size), ("batch_size", self.batch_size)):
            if 0 < state["handed_out"] < len(self) and state.get(name, now) != now:
                raise ValueError(
                    f"data: the checkpoint stands inside an epoch with {name} {state[name]}, now it is {now}; "
                    "resume with the data and batch sizes of the run"
                )
        self._handed_out, self._resume = state["handed_out"], True


def expected_work(pair: UnlabelledPair | Transition, group_size: int) -> float:
    """Characters that a pair makes a model read or write: its prompt once, next states G times; 0 for images, all alike."""
    return 0.0 if isinstance(pair.state, bytes) else len(pair.context) + len(pair.state) + group_size * len(pair.next_state)


class Passes(Generic[T]):
    """An endless row of items, numbered from 0: pass after pass over them, each in an order of its own.

    Args:
        items: at least one.
        seed: of the orders.
    """

    def __init__(self, items: Sequence[T], seed: int) -> None:
        self._items, self._seed = items, seed
        self._pass, self._order = -1, list[int]()

    def __getitem__(self, number: int) -> T:
        if number // len(self._items) != self._pass:
            self._pass = number // len(self._items)
            self._order = epoch_order(len(self._items), self._seed, self._pass)
        return self._items[self._order[number % len(self._items)]]


def warmup_batches(
    labelled: Sequence[Transition],
    state_only: Numbered[UnlabelledPair] | None = None,
    size: int = 0,
    first: int = 0,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Callable[[Sequence[int], int], Batch]:
    """Makes warm-up batches, with state-only pairs beside the labelled transitions where asked.

    Args:
        labelled: labelled transitions.
        state_only: endless row of pairs, or None.
        size: pairs of a global batch.
        first: number of the epoch's first pair.
        rank: this process.
        world_size: number of processes.
    """

    def make(indices: Sequence[int], batch: int) -> Batch:
        numbers = range(first + batch * size + rank, first + (batch + 1) * size, world_size)
        beside = () if state_only is None else tuple(state_only[number] for number in numbers)
        return Batch(labelled=tuple(labelled[i] for i in indices), unlabelled=beside)

    return make


def unlabelled_batches(
    items: Numbered[UnlabelledPair],
    replay: Sequence[Transition],
    replay_size: int,
    seed: int,
    epoch: int,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Callable[[Sequence[int], int], Batch]:
    """Makes batches of state-only pairs, with labelled transitions beside them where asked.

    The ranks share one replay batch, so that any number of them sees the same global batches.

    Args:
        items: state-only pairs.
        replay: labelled transitions to draw from.
        replay_size: labelled transitions of a global batch.
        seed: of the replay's order.
        epoch: of the run.
        rank: this process.
        world_size: number of processes.

    Raises:
        ValueError: if there is nothing to replay.
    """
    if replay_size and not replay:
        raise ValueError("data: replay_batch_size needs labelled transitions, but there are none; raise labelled_fraction")
    order = epoch_order(len(replay), seed + 1, epoch) if replay_size else []

    def make(indices: Sequence[int], batch: int) -> Batch:
        places = range(batch * replay_size + rank, (batch + 1) * replay_size, world_size)
        again = tuple(replay[order[place % len(order)]] for place in places)
        return Batch(labelled=again, unlabelled=tuple(items[i] for i in indices))

    return make
