"""The latent action as a distribution: candidates for each pair, weighted by what both models think of them.

Phase II in closed form learns it, the FWM's ELBO sums over it, dreams draw from it. B pairs, N candidates of each at most.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from swirl_lightning.algorithm.experience import Experience
from swirl_lightning.algorithm.nonfinite import NonFiniteRewardError
from swirl_lightning.algorithm.objectives.posterior import Candidates, Posterior, solve
from swirl_lightning.algorithm.rewards import Member, Members, combine
from swirl_lightning.algorithm.settings import Gate, PosteriorConfig, RoleSettings
from swirl_lightning.types import Role, SamplingParams, ScoredRow, TokenScores, Transition, UnlabelledPair
from swirl_lightning.world_model.inference import Inference, pair_seed
from swirl_lightning.world_model.pair import REFERENCE


@dataclass(frozen=True, slots=True)
class LatentPosterior:
    """q*(z | x, y) over the candidates of each pair."""

    pairs: tuple[UnlabelledPair, ...]  # B
    actions: tuple[tuple[str, ...], ...]  # B x the pair's candidates, distinct
    posterior: Posterior  # [B, N]
    rewards: Tensor  # float [B, N]
    parts: dict[str, Tensor]  # each part of the reward by name, [B, N]
    trusted: Tensor  # bool [B], pairs that the gate lets through
    tokens: int  # sampled for the candidates

    def weighted(self, least: float = 0.0) -> list[list[tuple[str, float]]]:
        """The candidates of each pair that weigh at least so much, with their weights; the best one always stays."""
        kept = []
        for actions, weights in zip(self.actions, self.posterior.weights.tolist(), strict=True):
            floor = min(least, max(weights))
            kept.append([(z, w) for z, w in zip(actions, weights, strict=False) if w >= floor])
        return kept

    def trustworthy(self) -> list[list[tuple[str, float]]]:
        """The best candidate of each pair that the gate lets through, and none of the others."""
        best, trusted = self.posterior.best.tolist(), self.trusted.tolist()
        return [[(z[b], 1.0)] if through else [] for z, b, through in zip(self.actions, best, trusted, strict=True)]

    def targets(self, config: PosteriorConfig) -> list[list[tuple[str, float]]]:
        """What a policy with such a gate learns of each pair."""
        return self.weighted(config.least_weight) if config.gate.open else self.trustworthy()


@dataclass(slots=True)
class _Way:
    """How a candidate came about."""

    count: int = 0  # draws that gave it; 0 for given ones
    proposal: float = 0.0  # log-probability of such a draw


@dataclass(frozen=True, slots=True)
class ScoredActions:
    """Candidate actions of each pair with what both models say of them."""

    pairs: tuple[UnlabelledPair, ...]  # B
    actions: tuple[tuple[str, ...], ...]  # B x the pair's candidates, distinct
    candidates: Candidates  # [B, N], with log Q(z | x, y)
    rewards: Tensor  # float [B, N]
    parts: dict[str, Tensor]  # each part of the reward by name, [B, N]
    belief: Tensor  # float [B, N], how common actions are in the labels
    explains: Tensor  # float [B, N], log P(y | x, z)
    tokens: int  # sampled for the candidates


def score_actions(
    inference: Inference,
    pairs: Sequence[UnlabelledPair],
    settings: RoleSettings,
    *,
    seed: int,
    epoch: int = 0,
    labels: Mapping[str, int] = MappingProxyType({}),
    reference: Role | None = None,
    skip_nonfinite: bool = False,
) -> ScoredActions:
    """Candidate actions of each pair, scored under both models.

    Candidates are the IDM's greedy answer and draws, and what is proposed. The judge of the reward is the FWM.

    Args:
        inference: the models.
        pairs: B state-only pairs.
        settings: of the IDM.
        seed: of the run; what is drawn for a pair depends on seed, epoch and the pair only.
        epoch: of the run; also chooses the wording where there are several.
        labels: how often the labels have each action: what the FWM believes of actions before it has seen anything.
        reference: role whose scores come from the reference policy, which does not move within a phase.
        skip_nonfinite: rule candidates out whose reward is NaN instead of raising.

    Returns:
        The candidates.

    Raises:
        NonFiniteRewardError: if a reward is NaN and ``skip_nonfinite`` is off.
    """
    found, tokens = _candidates(inference, pairs, settings, seed, epoch)
    builder = inference.prompts
    asked: list[list[ScoredRow]] = []  # log Q(z | x, y)
    explained: list[list[ScoredRow]] = []  # log P(y | x, z)
    members: list[Member] = []
    for pair, ways in zip(pairs, found, strict=True):
        wordings = {role: builder.wording_of(pair, role, epoch) for role in Role}
        asked.append([builder.idm_row(pair, pair.next_state, z, wordings[Role.IDM]) for z in ways])
        explained.append([builder.fwm_row(pair, z, pair.next_state, wordings[Role.FWM]) for z in ways])
        members += [Member(pair, z, pair.next_state, finished=True) for z in ways]
    prior = score_under(inference, Role.IDM, asked, reference).logprobs.sum(-1)  # [sum of candidates]
    seen = Members(Role.IDM, members, inference.codec, lambda: score_under(inference, Role.FWM, explained, reference))
    rewards, parts = combine(settings.reward_parts, seen)
    rewards = _without_nan(rewards, members, skip_nonfinite=skip_nonfinite)
    origins, sizes = [way for ways in found for way in ways.values()], [len(ways) for ways in found]

    def rows(values: Tensor) -> Tensor:
        return per_pair(values.to(prior.device), sizes)

    return ScoredActions(
        pairs=tuple(pairs),
        actions=tuple(tuple(ways) for ways in found),
        candidates=Candidates(
            prior=rows(prior),
            mask=rows(torch.ones(len(origins), dtype=torch.bool)),
            counts=rows(torch.tensor([way.count for way in origins], dtype=torch.int64)),
            proposal=rows(torch.tensor([way.proposal for way in origins])),
            draws=settings.posterior.draws,
        ),
        rewards=rows(rewards),
        parts={name: rows(values) for name, values in parts.items()},
        belief=rows(torch.tensor([math.log(1.0 + labels.get(member.action, 0)) for member in members])),
        explains=rows(seen.judged.logprobs.sum(-1)),
        tokens=tokens,
    )


def infer_posterior(
    inference: Inference,
    scored: ScoredActions,
    beta: float,
    temperature: float = 1.0,
    gate: Gate = Gate(),  # noqa: B008  # frozen
    *,
    epoch: int = 0,
    reference: Role | None = None,
) -> LatentPosterior:
    """Solves Phase II for each pair: ``q*(z|x,y) ~ Q(z|x,y)^(1/T) p(z)^(1-1/T) exp(r(z) / beta)`` over its candidates.

    Args:
        inference: the models.
        scored: the candidates.
        beta: weight of the divergence.
        temperature: T, of the IDM as reference.
        gate: which pairs are trusted.
        epoch: of the run; chooses the wording where there are several.
        reference: role whose scores come from the reference policy.

    Returns:
        The posterior of each pair.
    """
    posterior = solve(scored.candidates, scored.rewards, beta, belief=scored.belief, temperature=temperature)
    trusted = posterior.weights.amax(-1) >= gate.confidence  # [B]
    if gate.agreement:
        trusted = trusted & posterior.agreement
    if gate.explained:
        builder = inference.prompts
        unknown = [[builder.state_only_row(pair, builder.wording_of(pair, Role.FWM, epoch))] for pair in scored.pairs]
        without = score_under(inference, Role.FWM, unknown, reference).logprobs.sum(-1)  # [B], log P(y | x)
        known = scored.explains.gather(-1, posterior.best[:, None])[:, 0]  # [B], log P(y | x, z)
        trusted = trusted & (known > without)
    return LatentPosterior(scored.pairs, scored.actions, posterior, scored.rewards, scored.parts, trusted, scored.tokens)


def member_posterior(experience: Experience, prior: Tensor, beta: float) -> Posterior:
    """Solves Phase I for each pair: ``q*(y'|x,z) ~ P(y'|x,z) exp(r(y') / beta)`` over a group and the observed next state.

    Equal members count together, at the first one's place; members that were cut off or left out do not count.

    Args:
        experience: B anchored groups of G drawn members.
        prior: [B, G + 1], log-probability of each member under the reference policy.
        beta: weight of the divergence.

    Returns:
        The posterior, [B, G + 1].
    """
    rollouts, judgement = experience.rollouts, experience.judgement
    counts = torch.zeros(prior.shape, dtype=torch.int64)
    stands = torch.zeros(prior.shape, dtype=torch.bool)
    usable = (rollouts.trajectory.finished & ~judgement.skipped).tolist()
    for b, group in enumerate(rollouts.rows):
        anchor = len(group) - 1
        places = {group[anchor].ids: anchor}
        stands[b, anchor] = True
        for k, row in enumerate(group[:anchor]):
            if usable[b][k] and places.setdefault(row.ids, k) != anchor:
                counts[b, places[row.ids]] += 1
                stands[b, places[row.ids]] = True
    drawn = Candidates(
        prior=prior,
        mask=stands.to(prior.device),
        counts=counts.to(prior.device),
        proposal=rollouts.trajectory.logprobs.sum(-1),
        draws=rollouts.drawn,
    )
    return solve(drawn, judgement.rewards.masked_fill(~judgement.rewards.isfinite(), -torch.inf), beta)


def dream(
    inference: Inference,
    latent: LatentPosterior,
    actions: Sequence[str],
    share: float,
    *,
    seed: int,
    epoch: int = 0,
) -> tuple[list[Transition], int]:
    """Transitions of the FWM's own: ``(x, z, y')`` with ``y'`` its greedy answer, so that z is right wherever the FWM is.

    The sleep phase of wake-sleep (arXiv:1406.2751). Answers that are cut off are left out.

    Args:
        inference: the models.
        latent: gives states, and actions to dream about.
        actions: of the labels; a ``share`` of the dreams is about one of them, drawn at random.
        share: in [0, 1]; with 1 the posterior is not looked at.
        seed: of the run.
        epoch: of the run.

    Returns:
        At most B transitions, and how many tokens they took.
    """
    chosen = []
    for pair, weighted in zip(latent.pairs, latent.weighted(), strict=True):
        draw = random.Random(pair_seed(seed, pair, "dream", epoch))
        pool = actions and draw.random() < share
        names, weights = zip(*weighted, strict=True)
        chosen.append(draw.choice(actions) if pool else draw.choices(names, weights)[0])
    builder, greedy = inference.prompts, replace(inference.sampling[Role.FWM], temperature=0.0)
    asked = [(pair, z, builder.wording_of(pair, Role.FWM, epoch)) for pair, z in zip(latent.pairs, chosen, strict=True)]
    prompts = [builder.fwm_prompt(*each).ids for each in asked]
    drawn = inference.rollout(Role.FWM, prompts, 1, seeds=[0] * len(prompts), params=greedy)
    finished = drawn.finished[:, 0].tolist()
    states = [decoded[0] for decoded in inference.decode(Role.FWM, drawn)]
    dreams = [
        Transition(pair.state, state, z, pair.context, pair.episode, pair.step)
        for (pair, z, _), state, whole in zip(asked, states, finished, strict=True)
        if whole
    ]
    return dreams, int(drawn.mask.sum())


def score_under(inference: Inference, role: Role, groups: Sequence[Sequence[ScoredRow]], reference: Role | None) -> TokenScores:
    """Log-probabilities at temperature 1 inside the role's constraint, under the reference policy if it stands for the role."""
    with inference.world_model.use(REFERENCE if role is reference else role) as model:
        return inference.scorer.score(model, groups, constraint=inference.constraints.get(role))


def per_pair(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Values of all candidates as one row a pair, padded with zeros: [sum of sizes] -> [B, N]."""
    return pad_sequence(list(values.split(list(sizes))), batch_first=True) if sizes else values.new_zeros(0, 1)


def _candidates(
    inference: Inference, pairs: Sequence[UnlabelledPair], settings: RoleSettings, seed: int, epoch: int
) -> tuple[list[dict[str, _Way]], int]:
    """Distinct candidates of each pair with the way they came about, and how many tokens were sampled."""
    builder, draws = inference.prompts, settings.posterior.draws
    prompts = [builder.idm_prompt(pair, wording=builder.wording_of(pair, Role.IDM, epoch)).ids for pair in pairs]
    seeds = [pair_seed(seed, pair, "candidates", epoch) for pair in pairs]
    found: list[dict[str, _Way]] = [{} for _ in pairs]
    tokens = 0
    if settings.posterior.greedy:
        params = SamplingParams(settings.sampling.max_new_tokens, temperature=0.0)
        greedy = inference.rollout(Role.IDM, prompts, 1, seeds=seeds, params=params)
        tokens += int(greedy.mask.sum())
        for ways, answers in zip(found, inference.decode(Role.IDM, greedy), strict=True):
            ways[str(answers[0])] = _Way()
    for ways, pair, own in zip(found, pairs, seeds, strict=True):
        ways |= {z: _Way() for proposals in settings.posterior.proposals for z in proposals(pair, own)}
        if not ways:
            raise ValueError(f"idm.posterior: nothing is proposed for episode {pair.episode!r} step {pair.step}; set greedy")
    if not draws:
        return found, tokens
    drawn = inference.rollout(Role.IDM, prompts, draws, seeds=seeds)
    logprobs, finished = drawn.logprobs.sum(-1).tolist(), drawn.finished.tolist()  # [B, K]
    for b, answers in enumerate(inference.decode(Role.IDM, drawn)):
        given = set(found[b])
        for k, z in enumerate(map(str, answers)):
            if finished[b][k] and z not in given:  # an answer that was cut off is no action
                way = found[b].setdefault(z, _Way(proposal=logprobs[b][k]))
                way.count += 1
    return found, tokens + int(drawn.mask.sum())


def _without_nan(rewards: Tensor, members: Sequence[Member], *, skip_nonfinite: bool) -> Tensor:
    """Rewards in which NaN rules a candidate out."""
    broken = rewards.isnan()
    if bool(broken.any()) and not skip_nonfinite:
        member = members[int(broken.nonzero()[0, 0])]
        raise NonFiniteRewardError(
            {
                "policy": Role.IDM.value,
                "judge": Role.FWM.value,
                "reward": float("nan"),
                "episode": member.pair.episode,
                "step": member.pair.step,
                "state": repr(member.pair.state),
                "next_state": repr(member.pair.next_state),
                "latent_action": member.action,
                "completion": repr(member.action),
            }
        )
    return rewards.masked_fill(broken, -torch.inf)
