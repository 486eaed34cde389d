"""One training step of every phase, from batch to optimizer (arXiv:2602.06130, Algorithm 1). Plain torch: no Lightning here.

A phase's step collects rollouts (lines 1 to 3, in :mod:`swirl_lightning.algorithm.rollouts`), sends losses backward and steps
the optimizer (line 4). Losses come as micro-batches, parts whose gradients add up to those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.algorithm.ahead import Ahead
from swirl_lightning.algorithm.experience import Experience
from swirl_lightning.algorithm.objectives.grpo import grpo_loss, normaliser
from swirl_lightning.algorithm.phase_log import experience_values, loss_values, timed, times
from swirl_lightning.algorithm.rollouts import collect
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.distributed.ranks import sum_over_ranks
from swirl_lightning.distributed.sharding import any_rank, in_step
from swirl_lightning.scoring.scorer import IDLE, CausalScorer
from swirl_lightning.types import Batch, Role, SamplingParams, ScoredRow, Transition, UnlabelledPair
from swirl_lightning.world_model.inference import Inference
from swirl_lightning.world_model.pair import REFERENCE


@dataclass(frozen=True, slots=True)
class LossPart:
    """One micro-batch: a loss to send backward, and sums to log."""

    loss: Tensor  # scalar; parts add up to the step's loss
    sums: dict[str, float]  # additive statistics


@dataclass(frozen=True)
class PhaseSteps:
    """Takes the steps of every phase and says what is worth logging.

    What the methods return are this rank's sums: :func:`swirl_lightning.algorithm.phase_log.summary` makes values of
    those of all ranks.

    Attributes:
        inference: The models.
        roles: Settings of each role as policy.
        backward: Sends a loss backward.
        optimise: Steps the phase's optimizer; told whether this is the batch's last step.
        nonfinite: Called with the name and value of a loss that is not finite; may raise.
        seed: Seed of rollouts.
        skip_nonfinite: Leave members whose reward is not finite out instead of raising.
        warmup: ``joint`` sends both tasks through one model, ``each`` through their own.
        warmup_idm_weight: Weight of the IDM's task in a joint warm-up.
        state_only_weight: Weight of ``log P(y|x)`` of state-only pairs in the warm-up.
        pseudo_temperature: Temperature of the pseudo-labels; 0 is greedy.
        ahead: What is known of the next batch where its rollout has begun.
    """

    inference: Inference
    roles: Mapping[Role, RoleSettings]
    backward: Callable[[Tensor], None]
    optimise: Callable[[bool], None]
    nonfinite: Callable[[str, float], None]
    seed: int = 0
    skip_nonfinite: bool = False
    warmup: Literal["joint", "each"] = "joint"
    warmup_idm_weight: float = 1.0
    state_only_weight: float = 0.0
    pseudo_temperature: float = 0.0
    ahead: Ahead = field(default_factory=Ahead)

    # ------------------------------------------------------------------ phases

    def warm_up(self, batch: Batch, epoch: int) -> dict[str, float]:
        """Supervised training of both roles on labelled transitions, of the FWM on state-only pairs where asked."""
        sums: dict[str, float] = {}
        if self.warmup == "joint":  # both prompts begin with the state, which is computed once
            tasks = {Role.FWM: 1.0, Role.IDM: self.warmup_idm_weight}
            sums |= self.supervised(Role.FWM, tasks, batch.labelled, "nll", epoch)
        else:
            for role in Role:
                sums |= self.supervised(role, {role: 1.0}, batch.labelled, f"{role.value}_nll", epoch)
        if self.state_only_weight:
            sums |= self.state_only(batch.unlabelled, self.state_only_weight, epoch)
        self.optimise(True)
        return sums

    def swirl(self, role: Role, batch: Batch, epoch: int) -> tuple[Experience, dict[str, float]]:
        """Phase I (``role`` FWM) or Phase II (``role`` IDM): one GRPO step of a policy, or several on one rollout.

        Args:
            role: the policy.
            batch: state-only pairs, and labelled transitions to replay.
            epoch: of the run.

        Returns:
            The rollouts, and sums to log.

        Raises:
            NonFiniteRewardError: if a reward is not finite and ``skip_nonfinite`` is off.
        """
        settings, world_model = self.roles[role], self.inference.world_model
        with world_model.judging(role.opposite):  # 1. to 3.: latent actions, rollouts, rewards
            experience = self.collect(role, batch, epoch, trains=True)
        # 4. GRPO with a KL term to the policy as it stood when the iteration began
        with timed(experience.seconds, "reference"):
            reference = self._reference_of(role, experience) if settings.grpo.beta > 0 else None
        sums = experience_values(experience, reference)
        with timed(experience.seconds, "policy"):
            for inner in range(settings.inner_epochs):
                on_policy = inner == 0 and experience.rollouts.trajectory.current
                sums |= self._grpo(role, experience, reference, on_policy=on_policy)
                sums |= self.beyond_the_paper(role, experience, batch, epoch)
                self.optimise(inner + 1 == settings.inner_epochs)
        return experience.forgetting(), sums | times(experience.seconds)

    def collect(self, role: Role, batch: Batch, epoch: int, *, trains: bool = False) -> Experience:
        """Rollouts of a policy and what they are worth; see :func:`swirl_lightning.algorithm.rollouts.collect`."""
        settings, skip, ahead = self.roles[role], self.skip_nonfinite, self.ahead if trains else None
        self.ahead.upcoming = batch.upcoming
        return collect(
            self.inference, role, batch.unlabelled, settings, seed=self.seed, epoch=epoch, skip_nonfinite=skip, ahead=ahead
        )

    def pseudo(self, batch: Batch, epoch: int) -> dict[str, float]:
        """The baseline: supervised training of the FWM on actions that the IDM infers, and on labelled transitions if any.

        With replay this is SFT on the merged data, without it SFT continued on pseudo-labels (arXiv:2506.06006).
        """
        sampling = self.roles[Role.IDM].sampling
        params = SamplingParams(max_new_tokens=sampling.max_new_tokens, temperature=self.pseudo_temperature)
        with self.inference.world_model.judging(Role.IDM):
            inferred = self.inference.infer_actions(batch.unlabelled, params=params, seed=self.seed + epoch)
        labelled = [pair.with_action(z[0]) for pair, z in zip(batch.unlabelled, inferred, strict=True)]
        generated = sum(len(self.inference.prompts.action_completion(t.action)) for t in labelled)
        sums = self.supervised(Role.FWM, {Role.FWM: 1.0}, [*labelled, *batch.labelled], "nll", epoch)
        self.optimise(True)
        return sums | {"generated_tokens": float(generated)}

    # ------------------------------------------------------------------ losses, sent backward

    def supervised(
        self, role: Role, tasks: Mapping[Role, float], transitions: Sequence[Transition], name: str, epoch: int
    ) -> dict[str, float]:
        """Sends the supervised loss of ``tasks`` (with their weights) through the model of ``role``: this rank's part of it."""
        groups = [[self.row(task, transition, epoch) for task in tasks] for transition in transitions]
        lengths = [len(row.ids) - row.start for group in groups for row in group]
        totals = [sum_over_ranks(float(sum(lengths[i :: len(tasks)]))) for i in range(len(tasks))]
        factors = [weight / max(1.0, total) for weight, total in zip(tasks.values(), totals, strict=True)]
        with self.inference.world_model.use(role, training=True) as model:
            sums = self._send(supervised_parts(self.inference.scorer, model, groups, factors * len(groups)), model)
        return {name: sums.get("nll", 0.0) / sum(tasks.values())}

    def row(self, task: Role, transition: Transition, epoch: int) -> ScoredRow:
        """Prompt and true answer of a role."""
        prompts = self.inference.prompts
        wording = prompts.wording_of(transition, task, epoch)
        if task is Role.FWM:
            return prompts.fwm_row(transition, transition.action, transition.next_state, wording)
        return prompts.idm_row(transition, transition.next_state, transition.action, wording)

    def _grpo(self, role: Role, experience: Experience, reference: Tensor | None, *, on_policy: bool) -> dict[str, float]:
        """Sends the GRPO loss of the policy."""
        settings, scorer, rule = self.roles[role], self.inference.scorer, self.inference.constraints.get(role)
        total = sum_over_ranks(normaliser(experience.trained.flatten(0, 1), settings.grpo))
        with self.inference.world_model.use(role, training=True) as model:
            parts = policy_parts(
                scorer, model, experience, settings, reference=reference, normaliser=total, on_policy=on_policy, constraint=rule
            )
            return loss_values(self._send(parts, model))

    def _reference_of(self, role: Role, experience: Experience) -> Tensor:
        """Log-probabilities of the members under the reference policy as the policy samples, [B, G, T]."""
        if experience.rollouts.trajectory.current and self.inference.world_model.is_reference(role):  # the rollout computed it
            return experience.rollouts.trajectory.logprobs
        return self.reference_logprobs(experience, self.roles[role].sampling.temperature or 1.0)

    def reference_logprobs(self, experience: Experience, temperature: float) -> Tensor:
        """Log-probabilities of the members under the reference policy, [B, G, T]."""
        constraint = self.inference.constraints.get(experience.rollouts.role)
        with self.inference.world_model.use(REFERENCE) as model:
            scores = self.inference.scorer.score(
                model, experience.rollouts.rows, temperature=temperature, constraint=constraint
            )
        return scores.logprobs.view_as(experience.rollouts.trajectory.logprobs)

    def weighted(
        self, role: Role, groups: Sequence[Sequence[tuple[ScoredRow, float]]], name: str, *, scale: float = 1.0
    ) -> dict[str, float]:
        """Sends the weighted likelihood of rows backward, per token: ``-scale sum_n w_n log p_n / sum_n w_n length_n``."""
        weights = [weight for group in groups for _, weight in group]
        rows = [[row for row, _ in group] for group in groups if group]
        lengths = [len(row.ids) - row.start for group in rows for row in group]
        total = sum_over_ranks(sum(weight * length for weight, length in zip(weights, lengths, strict=True)))
        factors = [scale * weight / max(1.0, total) for weight in weights]
        with self.inference.world_model.use(role, training=True) as model:
            sums = self._send(supervised_parts(self.inference.scorer, model, rows, factors), model)
        return {name: sums.get("nll", 0.0) / scale}

    def beyond_the_paper(self, role: Role, experience: Experience | None, batch: Batch, epoch: int) -> dict[str, float]:
        """Sends supervised losses beside the objective's: likelihood of the pairs' own next states, replay of labels."""
        settings, latent = self.roles[role], None if experience is None else experience.rollouts.latent
        sums: dict[str, float] = {}
        if settings.nll_weight and experience is not None and latent is not None:
            labelled = [pair.with_action(z) for pair, z in zip(experience.rollouts.pairs, latent.actions, strict=True)]
            sums |= self.supervised(role, {role: settings.nll_weight}, labelled, "nll", epoch)
        if settings.state_only_weight:
            sums |= self.state_only(batch.unlabelled, settings.state_only_weight, epoch)
        if settings.replay_weight:
            sums |= self.supervised(role, {role: settings.replay_weight}, batch.labelled, "replay_nll", epoch)
        return sums

    def state_only(self, pairs: Sequence[UnlabelledPair], scale: float, epoch: int) -> dict[str, float]:
        """Sends the likelihood of next states backward with the action unknown."""
        prompts = self.inference.prompts
        rows = [prompts.state_only_row(pair, prompts.wording_of(pair, Role.FWM, epoch)) for pair in pairs]
        return self.weighted(Role.FWM, [[(row, 1.0)] for row in rows], "state_only_nll", scale=scale)

    def _send(self, parts: Iterable[LossPart], model: PreTrainedModel) -> dict[str, float]:
        """Sends parts backward and adds up what they say."""
        sums: dict[str, float] = {}
        for part in parts:
            finite = bool(torch.isfinite(part.loss))
            if not finite:
                self.nonfinite("loss", float(part.loss.detach()))
            if any_rank(not finite, model):  # a sharded model's backward pass needs all ranks
                continue
            self.backward(part.loss)
            for key, value in part.sums.items():
                sums[key] = sums.get(key, 0.0) + value
        return sums


def supervised_parts(
    scorer: CausalScorer, model: PreTrainedModel, groups: Sequence[Sequence[ScoredRow]], weights: Sequence[float]
) -> Iterator[LossPart]:
    """Negative log-likelihood ``-sum_n weights[n] * sum_t log p_nt``, part by part.

    Args:
        scorer: computes log-probabilities.
        model: the policy, in train mode.
        groups: rows, those with a common prefix together; N in all.
        weights: N factors in the flattened order, e.g. one over the number of scored tokens.

    Yields:
        Parts with the sum ``nll`` (weighted).
    """
    rows = [row for group in groups for row in group]
    for batch in in_step(scorer.micro_batches(groups), model):
        if batch is None:
            yield _idle(scorer, model)
            continue
        scores = scorer(model, [[rows[n] for n in part] for part in batch])
        index = [n for part in batch for n in part]
        factor = torch.tensor([weights[n] for n in index], device=scores.logprobs.device)  # [n]
        loss = -(scores.logprobs.sum(-1) * factor).sum()
        yield LossPart(loss, {"nll": float(loss.detach())})


def policy_parts(
    scorer: CausalScorer,
    model: PreTrainedModel,
    experience: Experience,
    settings: RoleSettings,
    *,
    reference: Tensor | None,
    normaliser: float,
    on_policy: bool,
    constraint: TokenConstraint | None = None,
) -> Iterator[LossPart]:
    """GRPO loss of an experience, part by part (arXiv:2602.06130, Section 3).

    While the policy is still the one that sampled, the ratio is formed with its own log-probabilities, so that its value is
    exactly one and no second forward pass is needed; later passes use the log-probabilities recorded while sampling.

    Args:
        scorer: computes log-probabilities.
        model: the policy, in train mode.
        experience: the rollouts, B x G.
        settings: the policy's settings.
        reference: log-probabilities under the reference policy, [B, G, T], or None without a KL term.
        normaliser: denominator of the whole batch, over all ranks.
        on_policy: whether the policy is unchanged since the rollout.
        constraint: the policy's constraint, as in sampling.

    Yields:
        Parts with the additive statistics of ``grpo_loss`` and ``entropy``, ``tokens`` and, on-policy, ``mismatch``.
    """
    rollouts, trained = experience.rollouts, experience.trained
    trajectory, importance, temperature = rollouts.trajectory, rollouts.importance, settings.sampling.temperature or 1.0
    chosen = trained_groups(experience, settings)
    rows = [(b, k) for b in chosen for k in range(len(rollouts.rows[b]))]
    batches = list(scorer.micro_batches([rollouts.rows[b] for b in chosen]))
    prefixes = trajectory.prefixes if on_policy and len(batches) == 1 else None  # a graph can be gone back once
    for batch in in_step(batches, model):
        if batch is None:
            yield _idle(scorer, model)
            continue
        parts = [[rollouts.rows[b][k] for b, k in (rows[n] for n in part)] for part in batch]
        picked = torch.tensor([rows[n] for part in batch for n in part], device=trajectory.mask.device).unbind(1)  # b, k: [n]
        known = None if prefixes is None else prefixes.take([rows[part[0]][0] for part in batch])
        scores = scorer(model, parts, temperature=temperature, constraint=constraint, entropy=True, prefixes=known)  # [n, t]
        t = scores.logprobs.shape[1]
        mask, sampled = trained[picked][:, :t], trajectory.logprobs[picked][:, :t]  # [n, t]
        result = grpo_loss(
            scores.logprobs,
            scores.logprobs.detach() if on_policy else sampled,
            experience.advantages[picked],
            mask,
            settings.grpo,
            ref_logprobs=None if reference is None else reference[picked][:, :t],
            normaliser=normaliser,
            weights=None if importance is None else importance.weights[picked][:, :t],
        )
        sums = {**result.sums, "entropy": float((scores.entropy * mask).sum()), "tokens": float(mask.sum())}
        if on_policy:  # later, the policy has moved
            sums["mismatch"] = float(((scores.logprobs.detach() - sampled).abs() * mask).sum())
        yield LossPart(result.loss, sums)


def trained_groups(experience: Experience, settings: RoleSettings) -> list[int]:
    """Groups that can move the policy: without a KL term, a group without spread has no gradient and costs nothing."""
    if settings.grpo.beta > 0:
        return list(range(len(experience.rollouts.rows)))
    return [b for b, flat in enumerate(experience.zero_spread.tolist()) if not flat]


def _idle(scorer: CausalScorer, model: PreTrainedModel) -> LossPart:
    """The part of a rank that has no rows left while others go on with a sharded model: its gradients are zero."""
    return LossPart(scorer(model, [IDLE]).logprobs.sum() * 0.0, {})
