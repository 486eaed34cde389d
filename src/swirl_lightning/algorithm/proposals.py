"""Actions to be considered for a pair besides the IDM's own answers.

An IDM that has learnt its labels by heart draws one and the same action again and again: what it might be wrong about has to
come from elsewhere. What is proposed is scored by both models, so a bad proposal costs time, not truth.
"""

from __future__ import annotations

import math
import random
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher

from typing_extensions import override

from swirl_lightning.codecs.base import Codec
from swirl_lightning.codecs.constraints import ConstraintSpec
from swirl_lightning.metrics.text import words
from swirl_lightning.types import State, Transition, UnlabelledPair


class Proposals(ABC):
    """Proposes actions. Subclass it and name the class in YAML, under ``idm.posterior.proposals``."""

    def prepare(self, labelled: Sequence[Transition], codec: Codec) -> None:  # noqa: B027  # most need nothing
        """Looks at what may be looked at, once, before training.

        Args:
            labelled: the labelled transitions of the warm-up.
            codec: turns states and actions into token ids.
        """

    @abstractmethod
    def __call__(self, pair: UnlabelledPair, seed: int) -> Sequence[str]:
        """Actions that may have led from the pair's state to its next state; repeated ones count once.

        Args:
            pair: state-only.
            seed: of what is drawn at random, if anything; another one for every pair and epoch.
        """


class GivenActions(Proposals):
    """A list of one's own.

    Args:
        actions: Proposed for every pair.
    """

    def __init__(self, actions: Sequence[str]) -> None:
        if isinstance(actions, str) or not actions:
            raise ValueError(f"GivenActions.actions: give a non-empty list of actions, got {actions!r}")
        self.actions = tuple(actions)

    @override
    def __call__(self, pair: UnlabelledPair, seed: int) -> Sequence[str]:
        return self.actions


class SeenActions(Proposals):
    """The commonest actions of the labels, for every pair: right where there are few.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self._actions: tuple[str, ...] = ()

    @override
    def prepare(self, labelled: Sequence[Transition], codec: Codec) -> None:
        counts = Counter(transition.action for transition in labelled)
        self._actions = tuple(sorted(counts, key=lambda action: (-counts[action], action))[: self.limit])

    @override
    def __call__(self, pair: UnlabelledPair, seed: int) -> Sequence[str]:
        return self._actions


class SimilarStates(Proposals):
    """The actions of the labelled transitions that are most like the pair: for actions in free text.

    Alike are transitions whose context, states, and what is new in the next state have words in common (of images: codes), rare
    ones above all.

    Args:
        neighbours: How many transitions.
    """

    def __init__(self, neighbours: int = 8) -> None:
        self.neighbours = neighbours
        self._labelled: Sequence[Transition] = ()

    @override
    def prepare(self, labelled: Sequence[Transition], codec: Codec) -> None:
        self._codec, self._labelled = codec, labelled
        features = [self._features(transition) for transition in labelled]
        self._holders: dict[Hashable, list[int]] = defaultdict(list)
        for i, found in enumerate(features):
            for feature in found:
                self._holders[feature].append(i)
        self._rarity = {feature: math.log(len(labelled) / len(holders)) for feature, holders in self._holders.items()}
        self._norms = [1.0 + sum(self._rarity[feature] for feature in found) for found in features]

    @override
    def __call__(self, pair: UnlabelledPair, seed: int) -> Sequence[str]:
        return [transition.action for transition in self._nearest(pair)]

    def _nearest(self, pair: UnlabelledPair) -> list[Transition]:
        shared: dict[int, float] = dict.fromkeys(range(len(self._labelled)), 0.0)
        for feature in self._features(pair) & self._holders.keys():
            for i in self._holders[feature]:
                shared[i] += self._rarity[feature]
        nearest = sorted(shared, key=lambda i: (-shared[i] / self._norms[i] ** 0.5, i))[: self.neighbours]
        return [self._labelled[i] for i in nearest]

    def _features(self, pair: UnlabelledPair | Transition) -> set[Hashable]:
        before, after = (self._units(state) for state in (pair.state, pair.next_state))
        return {*words(pair.context), *before, *(("new", unit) for unit in set(after) - set(before))}

    def _units(self, state: State) -> Sequence[Hashable]:
        return words(state) if isinstance(state, str) else self._codec.units(state)


class Analogies(SimilarStates):
    """What was done elsewhere, said of the things that are here: for actions in free text that no label has.

    Where "move cup to sink" led to "You move the cup to the sink.", "You move the pot to the sink." suggests "move pot to
    sink": words in which the next states differ are exchanged in the action. Those whose next states are most alike come first.

    Args:
        limit: How many.
        neighbours: Labelled transitions that are looked at, those that :class:`SimilarStates` names first.
    """

    def __init__(self, limit: int = 8, neighbours: int = 32) -> None:
        super().__init__(neighbours)
        self.limit = limit

    @override
    def __call__(self, pair: UnlabelledPair, seed: int) -> Sequence[str]:
        if not isinstance(pair.next_state, str):
            return ()  # images have no words in common with actions
        after = _tokens(pair.next_state)
        found: dict[str, float] = {}
        for labelled in self._nearest(pair):
            before = _tokens(str(labelled.next_state))
            matcher = SequenceMatcher(None, before, after, autojunk=False)
            action = labelled.action
            for kind, start, end, other_start, other_end in matcher.get_opcodes():
                if kind == "replace":
                    action = _exchanged(action, before[start:end], after[other_start:other_end])
            found[action] = max(matcher.ratio(), found.get(action, 0.0))
        return sorted(found, key=lambda action: (-found[action], action))[: self.limit]


class ConstraintSamples(Proposals):
    """Actions drawn evenly, token by token, from a grammar, a regular expression or a list.

    Args:
        constraint: What actions look like.
        draws: How many a pair.
        max_new_tokens: Longer ones are dropped.
    """

    def __init__(self, constraint: ConstraintSpec, draws: int = 8, max_new_tokens: int = 64) -> None:
        self.spec, self.draws, self.max_new_tokens = constraint, draws, max_new_tokens

    @override
    def prepare(self, labelled: Sequence[Transition], codec: Codec) -> None:
        self._codec, self._constraint = codec, self.spec.build(codec)

    @override
    def __call__(self, pair: UnlabelledPair, seed: int) -> Sequence[str]:
        generator = random.Random(seed)
        found = [self._draw(generator) for _ in range(self.draws)]
        return [action for action in found if action is not None]

    def _draw(self, generator: random.Random) -> str | None:
        ids: list[int] = []
        while len(ids) < self.max_new_tokens:
            ids.append(generator.choice(self._constraint.allowed(ids).nonzero()[:, 0].tolist()))
            if ids[-1] == self._codec.eos_id:
                return self._codec.decode_action(ids)
        return None


def _tokens(text: str) -> list[str]:
    """Words, and signs for themselves."""
    return re.findall(r"\w+|[^\w\s]", text)


def _exchanged(action: str, words: Sequence[str], others: Sequence[str]) -> str:
    """The action with other words in the place of some, where it has them."""
    said = r"\s*".join(map(re.escape, words))
    return re.sub(rf"(?<!\w){said}(?!\w)", lambda _: " ".join(others), action, flags=re.IGNORECASE)
