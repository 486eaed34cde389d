"""Lines 1 to 3 of a phase of Algorithm 1 (arXiv:2602.06130): latent actions, rollouts, rewards. Line 4 is in ``steps.py``.

B pairs, G members of a group, T sampled tokens at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from swirl_lightning.algorithm.anchor import with_anchor
from swirl_lightning.algorithm.experience import Experience, Judgement, LatentActions, Rollouts
from swirl_lightning.algorithm.nonfinite import NonFiniteRewardError, sample_of
from swirl_lightning.algorithm.objectives.grpo import group_advantages
from swirl_lightning.algorithm.other_engine import scored_again
from swirl_lightning.algorithm.phase_log import timed
from swirl_lightning.algorithm.rewards import Member, Members, combine, least
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.types import Prefixes, Role, ScoredRow, Trajectory, UnlabelledPair
from swirl_lightning.world_model.inference import Inference, pair_seed
from swirl_lightning.world_model.prompts import EncodedPrompt

if TYPE_CHECKING:
    from swirl_lightning.algorithm.ahead import Ahead


def collect(
    inference: Inference,
    role: Role,
    pairs: Sequence[UnlabelledPair],
    settings: RoleSettings,
    *,
    seed: int,
    epoch: int = 0,
    skip_nonfinite: bool = False,
    ahead: Ahead | None = None,
) -> Experience:
    """Rolls out the policy and scores it.

    Phase I (``role`` FWM): ``z ~ Q(.|x,y)``, ``y_k ~ P(.|x,z)``, reward from ``log Q(z|x,y_k)``.
    Phase II (``role`` IDM): ``z_k ~ Q(.|x,y)``, reward from ``log P(y|x,z_k)``.

    Args:
        inference: the models.
        role: the policy.
        pairs: B state-only pairs.
        settings: the policy's settings.
        seed: of the run; what is drawn for a pair depends on seed, epoch and the pair only.
        epoch: of the run; also chooses the wording where there are several, one for a whole group.
        skip_nonfinite: leave members with a reward that is not finite out instead of raising.
        ahead: given where the policy is going to be trained on its own draws, and keeps what it computes of its prompts for
            that; as soon as this batch is drawn, the engine may begin with the next one.

    Returns:
        The batch's experience.

    Raises:
        NonFiniteRewardError: if a reward is not finite and ``skip_nonfinite`` is off.
    """
    seconds: dict[str, float] = {}
    # 1. in Phase I, an action for each pair: z ~ Q(. | x, y)
    latent, known = None, None
    if role is Role.FWM:
        with timed(seconds, "label"):
            kept = None if ahead is None else ahead.take(tuple(pairs), epoch)
            latent, known = infer_latents(inference, pairs, seed, epoch) if kept is None else kept
    # 2. a group for each pair: next states y_k ~ P(. | x, z) in Phase I, actions z_k ~ Q(. | x, y) in Phase II
    with timed(seconds, "rollout"):
        rollouts = roll_out(inference, role, pairs, latent, settings.group_size, seed, epoch, trains=ahead is not None)
    if ahead is not None and ahead.upcoming:
        with timed(seconds, "ahead"):
            ahead.begin(inference, role, settings.group_size, seed, epoch)
    with timed(seconds, "old"):
        rollouts = scored_again(inference, rollouts)
        if settings.anchored:
            rollouts = with_anchor(inference, rollouts)
    # 3. rewards of the frozen opposite model: log Q(z | x, y_k) in Phase I, log P(y | x, z_k) in Phase II
    with timed(seconds, "reward"):
        judgement = judge(inference, rollouts, settings, epoch, skip_nonfinite=skip_nonfinite, known=known)
        counted = ~judgement.skipped
        advantages, zero_spread = group_advantages(judgement.rewards, counted=counted, normalise=settings.advantage)
    return Experience(rollouts, judgement, advantages, zero_spread, seconds)


def infer_latents(
    inference: Inference, pairs: Sequence[UnlabelledPair], seed: int, epoch: int
) -> tuple[LatentActions, Prefixes | None]:
    """Line 1 of Phase I: latent actions ``z ~ Q(.|x,y)``, and what the IDM has computed of ``(x, y)``."""
    builder = inference.prompts
    prompts = [builder.idm_prompt(pair, wording=builder.wording_of(pair, Role.IDM, epoch)).ids for pair in pairs]
    seeds = [pair_seed(seed, pair, "latent", epoch) for pair in pairs]
    drawn = inference.rollout(Role.IDM, prompts, 1, seeds=seeds, keep="values")
    actions = tuple(str(members[0]) for members in inference.decode(Role.IDM, drawn))
    return LatentActions(actions, drawn.logprobs.sum((1, 2)), int(drawn.mask.sum())), drawn.prefixes


def roll_out(
    inference: Inference,
    role: Role,
    pairs: Sequence[UnlabelledPair],
    latent: LatentActions | None,
    group_size: int,
    seed: int,
    epoch: int,
    *,
    trains: bool = False,
) -> Rollouts:
    """Line 2: a group of completions for each pair; those of the FWM follow the latent actions."""
    prompts, seeds = asked(inference, role, pairs, latent, seed, epoch)
    ids = [prompt.ids for prompt in prompts]
    tokens = sum(map(len, ids)) + len(ids) * group_size * inference.sampling[role].max_new_tokens
    one_pass = trains and tokens <= inference.scorer.token_budget and inference.world_model.trains_as_it_samples(role)
    trajectory = inference.rollout(role, ids, group_size, seeds=seeds, keep="gradients" if one_pass else "nothing")
    return Rollouts(
        role=role,
        pairs=tuple(pairs),
        latent=latent,
        samples=tuple(inference.decode(role, trajectory)),
        trajectory=trajectory,
        rows=_policy_rows(trajectory),
        importance=None,
        cut_tokens=sum(prompt.cut for prompt in prompts),
    )


def asked(
    inference: Inference, role: Role, pairs: Sequence[UnlabelledPair], latent: LatentActions | None, seed: int, epoch: int
) -> tuple[list[EncodedPrompt], list[int]]:
    """What the policy is asked for each pair, and the seeds of its answers."""
    builder = inference.prompts
    wordings = [builder.wording_of(pair, role, epoch) for pair in pairs]
    if latent is None:
        prompts = [builder.idm_prompt(pair, wording=w) for pair, w in zip(pairs, wordings, strict=True)]
    else:
        prompts = [builder.fwm_prompt(pair, z, w) for pair, z, w in zip(pairs, latent.actions, wordings, strict=True)]
    return prompts, [pair_seed(seed, pair, role, epoch) for pair in pairs]


def judge(
    inference: Inference,
    rollouts: Rollouts,
    settings: RoleSettings,
    epoch: int,
    *,
    skip_nonfinite: bool = False,
    known: Prefixes | None = None,
) -> Judgement:
    """Line 3: how likely the frozen opposite model finds the latent action (Phase I) or the observed next state (Phase II).

    That is the paper's reward; ``settings.rewards`` may name other parts. The judge goes on from ``known`` prompts.

    Raises:
        NonFiniteRewardError: if a reward is not finite and ``skip_nonfinite`` is off.
    """
    shape, role = rollouts.trajectory.finished.shape, rollouts.role  # [B, G]
    members = Members(
        role,
        _members(rollouts),
        inference.codec,
        lambda: inference.score_rows(role.opposite, _judge_rows(inference, rollouts, epoch), known),
    )
    flat, parts = combine(settings.reward_parts, members)
    device = rollouts.trajectory.logprobs.device
    rewards = flat.to(device).view(shape)
    broken, cut = ~torch.isfinite(rewards), ~rollouts.trajectory.finished  # [B, G]
    if bool(broken.any()) and not skip_nonfinite:
        b, k = (int(i) for i in broken.nonzero()[0])
        raise NonFiniteRewardError(sample_of(rollouts, b, k, float(rewards[b, k])))
    enough = (~cut & ~broken).sum(1, keepdim=True) > 1  # [B, 1], members that ended: two can be compared
    if settings.truncated == "floor":
        rewards = torch.where(cut, least(settings.reward_parts, members).to(device).view(shape), rewards)
    return Judgement(
        rewards=rewards,
        parts={name: values.to(device).view(shape) for name, values in parts.items()},
        logprob=members.judged.logprobs.sum(-1).view(shape) if members.were_judged else None,
        clamped=members.clamped.to(device).view(shape),
        skipped=broken | (cut & enough) if settings.truncated == "mask" else broken,
    )


def _members(rollouts: Rollouts) -> list[Member]:
    """What rewards see, group by group."""
    found, latent = list[Member](), rollouts.latent
    for b, (pair, samples) in enumerate(zip(rollouts.pairs, rollouts.samples, strict=True)):
        for sample, finished in zip(samples, rollouts.trajectory.finished[b].tolist(), strict=True):
            answer = (str(sample), pair.next_state) if latent is None else (latent.actions[b], sample)
            found.append(Member(pair, *answer, finished))
    return found


def _judge_rows(inference: Inference, rollouts: Rollouts, epoch: int) -> list[list[ScoredRow]]:
    """What the frozen model scores: a group per pair, a row per member, one wording for a whole group."""
    builder, latent, judge = inference.prompts, rollouts.latent, rollouts.role.opposite
    rows: list[list[ScoredRow]] = []
    for b, (pair, members) in enumerate(zip(rollouts.pairs, rollouts.samples, strict=True)):
        wording = builder.wording_of(pair, judge, epoch)
        if latent is None:
            rows.append([builder.fwm_row(pair, str(action), pair.next_state, wording) for action in members])
        else:
            rows.append([builder.idm_row(pair, state, latent.actions[b], wording) for state in members])
    return rows


def _policy_rows(trajectory: Trajectory) -> tuple[tuple[ScoredRow, ...], ...]:
    """Prompt and completion of every member, B x G."""
    completions = trajectory.completions.tolist()
    lengths = trajectory.lengths.tolist()
    return tuple(
        tuple(ScoredRow((*prompt, *ids[:length]), len(prompt)) for ids, length in zip(completions[b], lengths[b], strict=True))
        for b, prompt in enumerate(trajectory.prompts)
    )
