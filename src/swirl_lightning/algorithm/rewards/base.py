"""The seam of rewards: what a part sees, what it answers, and how parts are combined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from swirl_lightning.codecs.base import Codec
from swirl_lightning.types import Role, State, TokenScores, UnlabelledPair


class Member(NamedTuple):
    """One member of a group: an action and a next state, of which the policy gave one."""

    pair: UnlabelledPair  # the observed states, x and y
    action: str  # z: what was asked for in Phase I, the policy's answer in Phase II
    next_state: State  # y': the policy's answer in Phase I, the observed next state in Phase II
    finished: bool  # False where the answer was cut at max_new_tokens


class Members(Sequence[Member]):
    """The N members of a step, those of one pair behind each other; what a reward sees.

    Args:
        role: The policy; its answers are next states (FWM) or actions (IDM).
        members: N.
        codec: Compares and renders states.
        judge: Scores the N members under the frozen opposite model; called once, if a reward asks.
    """

    def __init__(self, role: Role, members: Sequence[Member], codec: Codec, judge: Callable[[], TokenScores]) -> None:
        self.role, self.codec = role, codec
        self._members, self._judge = members, judge
        self.clamped = torch.zeros(len(members), dtype=torch.bool)  # [N], True where a reward was cut off at its floor

    @cached_property
    def judged(self) -> TokenScores:
        """The frozen opposite model's log-probabilities of N rows: log Q(z|x,y') in Phase I, log P(y|x,z') in Phase II."""
        return self._judge()

    @property
    def were_judged(self) -> bool:
        """Whether a reward asked the judge."""
        return "judged" in vars(self)

    def answer(self, member: Member) -> State:
        """What the policy gave."""
        return member.next_state if self.role is Role.FWM else member.action

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        return self._members[index]


class Reward(ABC):
    """A part of the reward. Subclass it and name the class in YAML: ``{reward: {class_path: my_package.MyReward}}``."""

    policies: frozenset[Role] = frozenset(Role)
    """Roles whose answers the reward can read."""

    @abstractmethod
    def __call__(self, members: Members) -> Tensor:
        """What each member is worth; the more the better.

        Args:
            members: N.

        Returns:
            float [N]; a value that is not finite ends the run, or leaves the member out (``model.nonfinite``).
        """

    def least(self, members: Members) -> Tensor:
        """What members are worth that count for nothing, float [N]: 0 by default."""
        return torch.zeros(len(members))


@dataclass(frozen=True)
class RewardPart:
    """A reward with its weight.

    Attributes:
        reward: What is measured.
        weight: Factor in the sum of all parts.
        name: In logs; None takes the name of the class.
    """

    reward: Reward
    weight: float = 1.0
    name: str | None = None

    @property
    def label(self) -> str:
        """Name in logs."""
        return self.name or type(self.reward).__name__


def check_parts(role: Role, parts: Sequence[RewardPart]) -> None:
    """Parts must have names of their own and be able to read the policy's answers.

    Raises:
        ValueError: naming the part.
    """
    labels = [part.label for part in parts]
    if repeated := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"{role.value}.rewards: {repeated[0]!r} is there twice; give the parts names of their own (name: ...)")
    for part in parts:
        if role not in part.reward.policies:
            raise ValueError(
                f"{role.value}.rewards: {type(part.reward).__name__} compares next states, which the {role.value.upper()} "
                f"does not predict; it belongs to {role.opposite.value}.rewards"
            )


def combine(parts: Sequence[RewardPart], members: Members) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all parts.

    Args:
        parts: at least one.
        members: N.

    Returns:
        Rewards, float [N], and each part's own values by name, unweighted.

    Raises:
        ValueError: naming a part whose answer has another shape.
    """
    values: dict[str, Tensor] = {}
    for part in parts:
        values[part.label] = part.reward(members)
        if values[part.label].shape != (len(members),):
            raise ValueError(
                f"reward {part.label!r} answered with shape {tuple(values[part.label].shape)} for {len(members)} members; "
                "one value a member is asked for"
            )
    first, *rest = [part.weight * values[part.label] for part in parts]
    return sum((value.to(first.device) for value in rest), start=first), values


def least(parts: Sequence[RewardPart], members: Members) -> Tensor:
    """The weighted sum of the least that each part gives, float [N]: of an answer that was cut, for instance."""
    first, *rest = [part.weight * part.reward.least(members) for part in parts]
    return sum((value.to(first.device) for value in rest), start=first)
