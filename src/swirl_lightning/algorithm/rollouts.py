"""Rolling out a policy and letting the frozen opposite model judge (arXiv:2602.06130, Algorithm 1)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from swirl_lightning.algorithm.objectives.advantages import group_advantages
from swirl_lightning.algorithm.objectives.rewards import sequence_reward
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.types import Experience, Role, ScoredRow, State, Trajectory, UnlabelledPair
from swirl_lightning.world_model.inference import Inference, pair_seed

_OTHER_MODEL = 0.5  # nats a token between engine and policy; bfloat16 against float32 makes a few hundredths


class NonFiniteRewardError(FloatingPointError):
    """A judge returned a reward that is not finite.

    Args:
        sample: the offending sample, ready to be written out.
    """

    def __init__(self, sample: dict[str, object]) -> None:
        super().__init__(
            f"the {sample['judge']} gave the reward {sample['reward']} for episode {sample['episode']!r} step "
            f"{sample['step']}: the judge's weights or its input are broken (model.nonfinite=skip leaves such members out)"
        )
        self.sample = sample


def collect(
    inference: Inference,
    role: Role,
    pairs: Sequence[UnlabelledPair],
    settings: RoleSettings,
    *,
    seed: int,
    epoch: int = 0,
    skip_nonfinite: bool = False,
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

    Returns:
        The batch's experience.

    Raises:
        NonFiniteRewardError: if a reward is not finite and ``skip_nonfinite`` is off.
    """
    builder = inference.prompts
    seconds, clock = dict[str, float](), time.perf_counter()
    wordings = [{r: builder.wording_of(pair, r, epoch) for r in Role} for pair in pairs]
    actions: list[str] = []
    latent_logprob: Tensor | None = None
    latent_tokens = 0
    if role is Role.FWM:
        actions, latent_logprob, latent_tokens = _infer(inference, pairs, [w[Role.IDM] for w in wordings], seed, epoch)
        encoded = [builder.fwm_prompt(p, z, w[role]) for p, z, w in zip(pairs, actions, wordings, strict=True)]
        clock = _lap(seconds, "label", clock)
    else:
        encoded = [builder.idm_prompt(p, wording=w[role]) for p, w in zip(pairs, wordings, strict=True)]
    seeds = [pair_seed(seed, pair, role, epoch) for pair in pairs]
    trajectory = inference.rollout(role, [prompt.ids for prompt in encoded], settings.group_size, seeds=seeds)
    samples = tuple(inference.decode(role, trajectory))
    groups = _policy_rows(trajectory)
    clock = _lap(seconds, "rollout", clock)
    trajectory, importance, mismatch = _scored_again(inference, role, trajectory, groups)
    clock = _lap(seconds, "old", clock)

    scores = inference.score_rows(role.opposite, _judge_rows(inference, role, pairs, actions, samples, wordings))
    flat = sequence_reward(scores, reduce=settings.reward, clamp_min=settings.reward_floor)
    rewards, clamped = (values.view(trajectory.completions.shape[:2]) for values in flat)  # [B, G]
    skipped = ~torch.isfinite(rewards)
    if bool(skipped.any()) and not skip_nonfinite:
        b, k = (int(i) for i in skipped.nonzero()[0])
        raise NonFiniteRewardError(_sample(role, pairs[b], actions[b : b + 1], samples[b][k], float(rewards[b, k])))
    rewards = _fill_with_group_mean(rewards, skipped)
    advantages, zero_spread = group_advantages(rewards, normalise=settings.advantage)
    _lap(seconds, "reward", clock)
    return Experience(
        role=role,
        pairs=tuple(pairs),
        actions=tuple(actions),
        samples=samples,
        trajectory=trajectory,
        rewards=rewards,
        clamped=clamped,
        advantages=advantages.masked_fill(skipped, 0.0),
        zero_spread=zero_spread,
        groups=groups,
        judged=scores.logprobs.sum(-1).view(rewards.shape),
        latent_logprob=latent_logprob,
        skipped=skipped,
        importance=importance,
        engine_mismatch=mismatch,
        cut_tokens=sum(prompt.cut for prompt in encoded),
        latent_tokens=latent_tokens,
        seconds=seconds,
    )


def _infer(
    inference: Inference, pairs: Sequence[UnlabelledPair], wordings: Sequence[int], seed: int, epoch: int
) -> tuple[list[str], Tensor, int]:
    """Latent actions ``z ~ Q(.|x,y)``, their log-probabilities as drawn, [B], and how many tokens that took."""
    prompts = [inference.prompts.idm_prompt(p, wording=w).ids for p, w in zip(pairs, wordings, strict=True)]
    seeds = [pair_seed(seed, pair, "latent", epoch) for pair in pairs]
    drawn = inference.rollout(Role.IDM, prompts, 1, seeds=seeds)
    actions = [str(members[0]) for members in inference.decode(Role.IDM, drawn)]
    return actions, drawn.logprobs.sum((1, 2)), int(drawn.mask.sum())


def _scored_again(
    inference: Inference, role: Role, trajectory: Trajectory, groups: Sequence[Sequence[ScoredRow]]
) -> tuple[Trajectory, Tensor | None, float]:
    """What another engine drew, with the policy's own log-probabilities, capped importance weights [B, G, T] and their cause.

    Raises:
        ValueError: if the engine's probabilities are so far off that it cannot run this model.
    """
    cap = inference.engine.importance_cap
    if cap is None:
        return trajectory, None, 0.0
    with inference.world_model.use(role) as model:
        temperature, constraint = inference.sampling[role].temperature or 1.0, inference.constraints.get(role)
        scores = inference.scorer.score(model, groups, temperature=temperature, constraint=constraint)
    own = scores.logprobs.view_as(trajectory.logprobs).to(trajectory.logprobs.device)
    difference = (own - trajectory.logprobs).masked_fill(~trajectory.mask, 0.0)
    mismatch, tokens = float(difference.abs().sum()), int(trajectory.mask.sum())
    if mismatch > _OTHER_MODEL * tokens:
        raise ValueError(
            f"the engine's log-probabilities are off by {mismatch / tokens:.2f} a token: it runs another base model than "
            f"{inference.world_model.config.base!r}, or does not report them at the sampling temperature"
        )
    return replace(trajectory, logprobs=own), difference.exp().clamp(max=cap), mismatch


def _judge_rows(
    inference: Inference,
    role: Role,
    pairs: Sequence[UnlabelledPair],
    actions: Sequence[str],
    samples: Sequence[Sequence[State]],
    wordings: Sequence[dict[Role, int]],
) -> list[list[ScoredRow]]:
    """What the frozen model scores: a group per pair, a row per member."""
    builder = inference.prompts
    rows: list[list[ScoredRow]] = []
    for b, (pair, members) in enumerate(zip(pairs, samples, strict=True)):
        wording = wordings[b][role.opposite]
        if role is Role.FWM:
            rows.append([builder.idm_row(pair, state, actions[b], wording) for state in members])
        else:
            rows.append([builder.fwm_row(pair, str(action), pair.next_state, wording) for action in members])
    return rows


def _policy_rows(trajectory: Trajectory) -> tuple[tuple[ScoredRow, ...], ...]:
    """Prompt and completion of every member, B x G."""
    completions = trajectory.completions.tolist()
    lengths = trajectory.lengths.tolist()
    return tuple(
        tuple(ScoredRow((*prompt, *ids[:length]), len(prompt)) for ids, length in zip(completions[b], lengths[b], strict=True))
        for b, prompt in enumerate(trajectory.prompts)
    )


def _fill_with_group_mean(rewards: Tensor, skipped: Tensor) -> Tensor:
    """Rewards [B, G] in which members that do not count stand at their group's mean, so that they move nothing."""
    valid = rewards.masked_fill(skipped, 0.0)
    mean = valid.sum(1, keepdim=True) / (~skipped).sum(1, keepdim=True).clamp(min=1)
    return torch.where(skipped, mean, rewards)


def _sample(role: Role, pair: UnlabelledPair, action: Sequence[str], completion: State, reward: float) -> dict[str, object]:
    return {
        "policy": role.value,
        "judge": role.opposite.value,
        "reward": reward,
        "episode": pair.episode,
        "step": pair.step,
        "state": repr(pair.state),
        "next_state": repr(pair.next_state),
        "latent_action": action[0] if action else None,
        "completion": repr(completion),
    }


def _lap(seconds: dict[str, float], part: str, since: float) -> float:
    now = time.perf_counter()
    seconds[part] = now - since
    return now
