"""What the two models can be asked, with prompts, constraints and sampling in place. Plain torch: no Lightning here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from swirl_lightning.codecs.base import Codec, TokenConstraint
from swirl_lightning.rollout.base import Keep, RolloutEngine, RolloutRequest
from swirl_lightning.rollout.sampler import TransformersEngine
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.types import (
    Prefixes,
    Role,
    SamplingParams,
    ScoredRow,
    State,
    TokenScores,
    Trajectory,
    Transition,
    UnlabelledPair,
)
from swirl_lightning.world_model.pair import WorldModel
from swirl_lightning.world_model.prompts import PromptBuilder

Pair = UnlabelledPair | Transition
Progress = Callable[[int], None]


def pair_seed(seed: int, pair: Pair, *parts: object) -> int:
    """A sampling seed that depends on the run's seed and the pair only, not on batch or rank.

    Args:
        seed: of the run.
        pair: identified by episode and step.
        *parts: what else tells draws apart (role, epoch).

    Returns:
        An integer below 2**63.
    """
    key = "/".join(map(str, (seed, pair.episode, pair.step, *parts)))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) >> 1


@dataclass
class Inference:
    """Rollouts and scores of both roles.

    Attributes:
        world_model: The pair of models.
        prompts: Encodes prompts and scored rows.
        sampling: Default sampling settings of each role.
        constraints: Token constraint of each role, None where there is none.
        engine: Draws completions.
        scorer: Computes log-probabilities.
    """

    world_model: WorldModel
    prompts: PromptBuilder
    sampling: Mapping[Role, SamplingParams]
    constraints: Mapping[Role, TokenConstraint | None] = field(default_factory=dict)
    engine: RolloutEngine = field(default_factory=TransformersEngine)
    scorer: CausalScorer = field(default_factory=CausalScorer)

    @property
    def codec(self) -> Codec:
        """Turns states and actions into token ids."""
        return self.prompts.codec

    def rollout(
        self,
        role: Role,
        prompts: Sequence[Sequence[int]],
        group_size: int,
        *,
        seeds: Sequence[int],
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        keep: Keep = "nothing",
    ) -> Trajectory:
        """Draws a group of completions for each prompt of a role; ``keep`` asks for what is computed of the prompts."""
        request = self._request(role, prompts, group_size, seeds, params=params or self.sampling[role])
        request = replace(request, progress=progress, keep=keep)
        with self.world_model.use(role, gradients=keep == "gradients") as model:
            return self.engine.generate(model, request)

    def begin(self, role: Role, prompts: Sequence[Sequence[int]], group_size: int, *, seeds: Sequence[int]) -> None:
        """Lets the engine begin with what ``rollout`` is going to be asked for next."""
        with self.world_model.use(role) as model:
            self.engine.begin(model, self._request(role, prompts, group_size, seeds, params=self.sampling[role]))

    def _request(
        self, role: Role, prompts: Sequence[Sequence[int]], group_size: int, seeds: Sequence[int], *, params: SamplingParams
    ) -> RolloutRequest:
        return RolloutRequest(
            prompts=prompts,
            seeds=seeds,
            group_size=group_size,
            sampling=params,
            stop_ids=self.codec.stop_ids,
            pad_id=self.codec.pad_id,
            constraint=self.constraints.get(role),
        )

    def decode(self, role: Role, trajectory: Trajectory) -> Iterator[tuple[State, ...]]:
        """Completions of each prompt as states (FWM) or actions (IDM)."""
        decode = self.codec.decode_state if role is Role.FWM else self.codec.decode_action
        prompts, members = trajectory.completions.shape[:2]
        for i in range(prompts):
            yield tuple(decode(trajectory.completion_ids(i, k)) for k in range(members))

    def score_rows(
        self, role: Role | str, groups: Sequence[Sequence[ScoredRow]], prefixes: Prefixes | None = None
    ) -> TokenScores:
        """Log-probabilities of row tails at temperature 1 under a role (or ``reference``), without gradients."""
        constraint = self.constraints.get(role) if isinstance(role, Role) else None
        with self.world_model.use(role) as model:
            return self.scorer.score(model, groups, constraint=constraint, prefixes=prefixes)

    def infer_actions(
        self,
        pairs: Sequence[Pair],
        *,
        params: SamplingParams | None = None,
        samples: int = 1,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[list[str]]:
        """Asks the IDM which action led from each state to its next state.

        Args:
            pairs: B pairs.
            params: sampling settings; None takes the role's own.
            samples: answers a pair.
            seed: of the draws.
            progress: called with the number of newly finished answers.

        Returns:
            B lists of ``samples`` actions.
        """
        prompts = [self.prompts.idm_prompt(pair).ids for pair in pairs]
        answers = self._answers(Role.IDM, pairs, prompts, samples, seed, params=params, progress=progress)
        return [[str(action) for action in actions] for actions in answers]

    def predict_states(
        self,
        pairs: Sequence[Pair],
        actions: Sequence[str],
        *,
        params: SamplingParams | None = None,
        samples: int = 1,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[list[State]]:
        """Asks the FWM for the state after each action.

        Args:
            pairs: B pairs; only their state and context are read.
            actions: B actions.
            params: sampling settings; None takes the role's own.
            samples: predictions a pair.
            seed: of the draws.
            progress: called with the number of newly finished predictions.

        Returns:
            B lists of ``samples`` states.
        """
        prompts = [self.prompts.fwm_prompt(pair, action).ids for pair, action in zip(pairs, actions, strict=True)]
        answers = self._answers(Role.FWM, pairs, prompts, samples, seed, params=params, progress=progress)
        return [list(states) for states in answers]

    def _answers(
        self, role: Role, pairs: Sequence[Pair], prompts: Sequence[Sequence[int]], samples: int, seed: int, **options: Any
    ) -> Iterator[tuple[State, ...]]:
        """``samples`` decoded answers to each prompt; what is drawn for a pair does not depend on the others."""
        if not pairs:
            return iter(())
        seeds = [pair_seed(seed, pair, role) for pair in pairs]
        return self.decode(role, self.rollout(role, prompts, samples, seeds=seeds, **options))

    def exact_match(self, role: Role, transitions: Sequence[Transition]) -> float:
        """Share of labelled transitions whose answer the role gives right, greedily; compared in the tokenizer's own form."""
        return sum(self.right_answers(role, transitions)) / len(transitions)

    def right_answers(self, role: Role, transitions: Sequence[Transition]) -> list[bool]:
        """Which labelled transitions the role answers right, greedily; compared in the tokenizer's own form."""
        greedy, form = replace(self.sampling[role], temperature=0.0), self.codec.canonical
        if role is Role.FWM:
            states = self.predict_states(transitions, [t.action for t in transitions], params=greedy)
            answers = [(y[0], t.next_state) for y, t in zip(states, transitions, strict=True)]
        else:
            actions = self.infer_actions(transitions, params=greedy)
            answers = [(z[0], t.action) for z, t in zip(actions, transitions, strict=True)]
        return [form(answer) == form(true) for answer, true in answers]

    def answer_logprobs(self, role: Role, transitions: Sequence[Transition]) -> list[float]:
        """Log-probabilities of the true answers of labelled transitions, nats."""
        actions = [t.action for t in transitions]
        if role is Role.FWM:
            return total(self.score_states(transitions, actions, [t.next_state for t in transitions])).tolist()
        return total(self.score_actions(transitions, actions)).tolist()

    def score_states(self, pairs: Sequence[Pair], actions: Sequence[str], next_states: Sequence[State]) -> TokenScores:
        """``log P(next_state | state, action)`` of N rows; consecutive rows of one pair share their prefix."""
        rows = [
            self.prompts.fwm_row(pair, action, state) for pair, action, state in zip(pairs, actions, next_states, strict=True)
        ]
        return self.score_rows(Role.FWM, _by_pair(pairs, rows))

    def score_actions(
        self, pairs: Sequence[Pair], actions: Sequence[str], next_states: Sequence[State] | None = None
    ) -> TokenScores:
        """``log Q(action | state, next_state)`` of N rows; next states default to the observed ones."""
        observed = [pair.next_state for pair in pairs] if next_states is None else next_states
        rows = [self.prompts.idm_row(pair, state, action) for pair, action, state in zip(pairs, actions, observed, strict=True)]
        return self.score_rows(Role.IDM, _by_pair(pairs, rows))


def _by_pair(pairs: Sequence[Pair], rows: Sequence[ScoredRow]) -> list[list[ScoredRow]]:
    """Rows grouped with their neighbours of the same pair."""
    groups: list[list[ScoredRow]] = []
    for i, row in enumerate(rows):
        if i and pairs[i] is pairs[i - 1]:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def total(scores: TokenScores) -> torch.Tensor:
    """Sequence log-probabilities, float32 [N]."""
    return scores.logprobs.sum(-1)
