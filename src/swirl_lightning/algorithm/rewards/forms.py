"""Rewards for the form of an answer, and for what a function of one's own says."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from swirl_lightning.algorithm.rewards.base import Member, Members, Reward
from swirl_lightning.metrics.tools import read_json


class Finished(Reward):
    """1 where the answer ended by itself, 0 where it was cut at ``max_new_tokens``."""

    @override
    def __call__(self, members: Members) -> Tensor:
        return torch.tensor([float(member.finished) for member in members])


class JsonForm(Reward):
    """1 where the answer is a JSON object or array, else 0."""

    @override
    def __call__(self, members: Members) -> Tensor:
        return torch.tensor([float(isinstance(read_json(str(members.answer(m))), (dict, list))) for m in members])


class Pattern(Reward):
    """1 where the whole answer matches a regular expression, else 0.

    Args:
        pattern: As Python's ``re`` reads it.

    Raises:
        ValueError: if it is no regular expression.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"Pattern: {pattern!r} is no regular expression: {error}") from error

    @override
    def __call__(self, members: Members) -> Tensor:
        return torch.tensor([float(self._pattern.fullmatch(str(members.answer(m))) is not None) for m in members])


class FunctionReward(Reward):
    """What a function of one's own says about each member.

    Args:
        function: Import path in YAML, e.g. ``my_package.my_function``; takes a :class:`Member`, returns a number.
    """

    def __init__(self, function: Callable[[Member], float]) -> None:
        self.function = function

    @override
    def __call__(self, members: Members) -> Tensor:
        return torch.tensor([float(self.function(member)) for member in members])
