"""Rewards that compare a predicted next state with the observed one (RLVR-World, arXiv:2505.13934).

They need no judge and cannot be talked into a private code. For the FWM only: of actions there is no truth in a phase.
"""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections import Counter
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from swirl_lightning.algorithm.rewards.base import Members, Reward
from swirl_lightning.codecs.base import Codec
from swirl_lightning.metrics.images import ImageSimilarity as ImageMeasure
from swirl_lightning.metrics.text import ChangedAccuracy, TokenAccuracy, words
from swirl_lightning.metrics.tools import fields, multiset_f1, read_json
from swirl_lightning.metrics.web import ChangedElementF1, DomEditDistance
from swirl_lightning.types import Role, State

_KEY_VALUE = re.compile(r"^\s*([^:=\n]+?)\s*[:=]\s*(.*?)\s*$", re.MULTILINE)


class Grounded(Reward):
    """Base of rewards that compare predicted and observed next state; equal members are compared once."""

    policies = frozenset({Role.FWM})

    @abstractmethod
    def compare(self, predicted: State, observed: State, before: State, codec: Codec) -> float:
        """How good a prediction is.

        Args:
            predicted: in the codec's form, as are the others.
            observed: the true next state.
            before: the state before.
            codec: compares and renders states.
        """

    @override
    def __call__(self, members: Members) -> Tensor:
        codec = members.codec
        canonical = cache(codec.canonical)
        compare = cache(lambda y, true, x: float(self.compare(y, true, x, codec)))
        values = [compare(m.next_state, canonical(m.pair.next_state), canonical(m.pair.state)) for m in members]
        return torch.tensor(values, dtype=torch.float32)


class ExactMatch(Grounded):
    """1 where the observed next state was predicted, else 0."""

    @override
    def compare(self, predicted: State, observed: State, before: State, codec: Codec) -> float:
        return float(predicted == observed)


class WordF1(Grounded):
    """F1 of the words of a text, of the codes of an image, whatever their order."""

    @override
    def compare(self, predicted: State, observed: State, before: State, codec: Codec) -> float:
        ours, true = (Counter(words(s) if isinstance(s, str) else codec.units(s)) for s in (predicted, observed))
        return multiset_f1(ours, true)


class FieldF1(Grounded):
    """F1 of the fields of JSON answers, or of lines ``key: value`` and ``key = value``; any other text is one field."""

    @override
    def compare(self, predicted: State, observed: State, before: State, codec: Codec) -> float:
        return multiset_f1(_fields(predicted), _fields(observed))


def _fields(state: State) -> Counter[tuple[str, str]]:
    if not isinstance(state, str):
        raise TypeError("FieldF1 reads text; of images take UnitAccuracy or ImageSimilarity")
    found = _KEY_VALUE.findall(state) if read_json(state) is None else []
    return Counter((str(key), str(value)) for key, value in found) if found else fields(state)


class Measured(Grounded):
    """Base of rewards that are a metric's value for a single member."""

    _built: Metric | None = None

    @abstractmethod
    def metric(self, codec: Codec) -> Metric:
        """The metric; its ``update`` names what it reads: predictions, references, states (or rendered, observed: PNG)."""

    @override
    def compare(self, predicted: State, observed: State, before: State, codec: Codec) -> float:
        """The metric's value; where it has none (nothing changed), 1 for the observed next state and 0 for any other."""
        metric = self._built = self._built or self.metric(codec)
        metric.distributed_available_fn = lambda: False  # a member's reward is its own rank's business
        metric.reset()
        read = inspect.signature(type(metric).update).parameters
        given = {"predictions": predicted, "references": observed, "states": before}
        if "rendered" in read:
            given = {"rendered": codec.render(predicted), "observed": codec.render(observed)}
        metric.update(**{name: [value] for name, value in given.items() if name in read})
        value = float(metric.compute())
        return float(predicted == observed) if value != value else value


class UnitAccuracy(Measured):
    """Share of positions at which prediction and observation agree: words of a text, codes of an image."""

    @override
    def metric(self, codec: Codec) -> Metric:
        return TokenAccuracy(lambda state: words(state) if isinstance(state, str) else codec.units(state))


class ChangedUnits(Measured):
    """Of the words (codes of an image) that changed, the share that is right: copying the state is worth nothing."""

    @override
    def metric(self, codec: Codec) -> Metric:
        return ChangedAccuracy(lambda state: words(state) if isinstance(state, str) else codec.units(state))


class DomSimilarity(Measured):
    """One minus the edit distance of predicted and observed page, in elements (the ``web`` extra)."""

    @override
    def metric(self, codec: Codec) -> Metric:
        return DomEditDistance()

    @override
    def compare(self, predicted: State, observed: State, before: State, codec: Codec) -> float:
        return 1.0 - super().compare(predicted, observed, before, codec)


class ChangedElements(Measured):
    """F1 of the elements of a page that changed (the ``web`` extra)."""

    @override
    def metric(self, codec: Codec) -> Metric:
        return ChangedElementF1()


class ImageSimilarity(Measured):
    """Similarity of predicted and observed picture as it is seen (the ``visual`` extra).

    Args:
        measure: ``ssim``, structural similarity, at most 1; ``psnr`` in decibels, at most 100.
    """

    def __init__(self, measure: Literal["ssim", "psnr"] = "ssim") -> None:
        self.measure = measure

    @override
    def metric(self, codec: Codec) -> Metric:
        return ImageMeasure(self.measure)
