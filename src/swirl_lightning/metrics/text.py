"""Agreement of predicted and true states or actions. Every metric is a sum and a count, so ranks simply add up.

``update`` names the fields that a metric reads; a ``MetricCollection`` hands each metric its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from swirl_lightning.metrics.subsequence import lcs_positions
from swirl_lightning.types import State

Tokenize = Callable[[State], Sequence[Hashable]]


def words(state: State) -> Sequence[Hashable]:
    """Whitespace-separated words of a text state: the cells of a grid, the words of a page.

    Raises:
        TypeError: if the state is an image; its units are a codec's tokens.
    """
    if not isinstance(state, str):
        raise TypeError(f"words() got a state of type {type(state).__name__}: units of an image are its codec's tokens")
    return state.split()


def check_pairs(**fields: Sequence[Any]) -> None:
    """Parallel lists must be equally long.

    Raises:
        ValueError: naming every field with its length.
    """
    if len({len(field) for field in fields.values()}) > 1:
        raise ValueError("lists differ in length: " + ", ".join(f"{name} {len(field)}" for name, field in fields.items()))


class MeanOf(Metric):
    """A weighted mean: ``total / count``, both summed over updates and ranks; nan when nothing was counted."""

    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, values: Iterable[float]) -> None:
        numbers = list(values)
        self.total += sum(numbers)
        self.count += len(numbers)

    @override
    def compute(self) -> Tensor:
        return self.total / self.count


class ExactMatch(MeanOf):
    """Share of predictions that equal their reference, in [0, 1]."""

    @override
    def update(self, predictions: Sequence[State], references: Sequence[State]) -> None:
        check_pairs(predictions=predictions, references=references)
        self._add(float(p == r) for p, r in zip(predictions, references, strict=True))


class CopyRate(MeanOf):
    """Share of predicted next states that merely repeat the state, in [0, 1]."""

    higher_is_better = False

    @override
    def update(self, predictions: Sequence[State], states: Sequence[State]) -> None:
        check_pairs(predictions=predictions, states=states)
        self._add(float(p == x) for p, x in zip(predictions, states, strict=True))


class TokenAccuracy(MeanOf):
    """Positions at which prediction and reference agree over the longer length, averaged over predictions, in [0, 1].

    Args:
        tokenize: What a position is; usually a codec's tokens.
        **kwargs: of ``torchmetrics.Metric``.
    """

    def __init__(self, tokenize: Tokenize = words, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokenize = tokenize

    @override
    def update(self, predictions: Sequence[State], references: Sequence[State]) -> None:
        check_pairs(predictions=predictions, references=references)
        for prediction, reference in zip(predictions, references, strict=True):
            ours, true = self.tokenize(prediction), self.tokenize(reference)
            longest = max(len(ours), len(true))
            agree = sum(a == b for a, b in zip(ours, true, strict=False))
            self._add([agree / longest if longest else 1.0])


class ChangedAccuracy(MeanOf):
    """Of all units that differ between state and true next state, the share that the prediction gets right, in [0, 1].

    Copying the state scores 0 however little a world changes. Where state and next state have equally many units
    (a grid) units are compared position by position; otherwise by a longest common subsequence, and units that vanish without a
    successor do not count. nan when nothing changed anywhere.

    Args:
        units: What may change: cells, words, image tokens.
        **kwargs: of ``torchmetrics.Metric``.
    """

    def __init__(self, units: Tokenize = words, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    @override
    def update(self, predictions: Sequence[State], references: Sequence[State], states: Sequence[State]) -> None:
        check_pairs(predictions=predictions, references=references, states=states)
        for prediction, reference, state in zip(predictions, references, states, strict=True):
            before, true, ours = self.units(state), self.units(reference), self.units(prediction)
            match = _kept_positions if len(before) == len(true) else lcs_positions
            changed = set(range(len(true))) - match(before, true)
            self._add(float(i in right) for right in [match(ours, true)] for i in changed)


def _kept_positions(other: Sequence[Hashable], true: Sequence[Hashable]) -> set[int]:
    """Positions of ``true`` that ``other`` holds at the same place."""
    return {i for i, (a, b) in enumerate(zip(other, true, strict=False)) if a == b}
