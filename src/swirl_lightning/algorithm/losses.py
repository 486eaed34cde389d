"""Backward passes of one step of every phase. Plain torch: no Lightning here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.algorithm.objectives.grpo import normaliser
from swirl_lightning.algorithm.optimise import LossPart, policy_parts, supervised_parts
from swirl_lightning.algorithm.phase_log import COUNT, experience_values, loss_values
from swirl_lightning.algorithm.rollouts import collect
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.distributed.ranks import sum_over_ranks
from swirl_lightning.distributed.sharding import any_rank
from swirl_lightning.types import Batch, Experience, Role, SamplingParams, ScoredRow, Transition, UnlabelledPair
from swirl_lightning.world_model.inference import Inference
from swirl_lightning.world_model.pair import REFERENCE


@dataclass(frozen=True)
class PhaseLosses:
    """Sends the losses of a step backward and says what is worth logging; the caller steps the optimizer.

    What the methods return are this rank's sums: :func:`swirl_lightning.algorithm.phase_log.summary` makes values of
    those of all ranks.

    Attributes:
        inference: the models.
        roles: settings of each role as policy.
        backward: sends a loss backward.
        nonfinite: called with the name and value of a loss that is not finite; may raise.
        seed: of rollouts.
        skip_nonfinite: leave members whose reward is not finite out instead of raising.
    """

    inference: Inference
    roles: Mapping[Role, RoleSettings]
    backward: Callable[[Tensor], None]
    nonfinite: Callable[[str, float], None]
    seed: int = 0
    skip_nonfinite: bool = False

    def rows(self, task: Role, transition: Transition, epoch: int) -> ScoredRow:
        """Prompt and true answer of a role."""
        prompts = self.inference.prompts
        wording = prompts.wording_of(transition, task, epoch)
        if task is Role.FWM:
            return prompts.fwm_row(transition, transition.action, transition.next_state, wording)
        return prompts.idm_row(transition, transition.next_state, transition.action, wording)

    def supervised(
        self, role: Role, tasks: Mapping[Role, float], transitions: Sequence[Transition], name: str, epoch: int
    ) -> dict[str, float]:
        """Sends the supervised loss of ``tasks`` (with their weights) through the model of ``role``: this rank's part of it."""
        groups = [[self.rows(task, transition, epoch) for task in tasks] for transition in transitions]
        lengths = [len(row.ids) - row.start for group in groups for row in group]
        totals = [sum_over_ranks(float(sum(lengths[i :: len(tasks)]))) for i in range(len(tasks))]
        factors = [weight / max(1.0, total) for weight, total in zip(tasks.values(), totals, strict=True)]
        with self.inference.world_model.use(role, training=True) as model:
            sums = self._send(supervised_parts(self.inference.scorer, model, groups, factors * len(groups)), model)
        return {name: sums.get("nll", 0.0) / sum(tasks.values())}

    def pseudo(self, batch: Batch, temperature: float, epoch: int) -> dict[str, float]:
        """Supervised loss of the FWM on actions that the IDM infers, and on labelled transitions where there are any."""
        sampling = self.roles[Role.IDM].sampling
        params = SamplingParams(max_new_tokens=sampling.max_new_tokens, temperature=temperature)
        with self.inference.world_model.judging(Role.IDM):
            actions = self.inference.infer_actions(batch.unlabelled, params=params, seed=self.seed + epoch)
        labelled = _labelled(batch.unlabelled, [z[0] for z in actions])
        generated = sum(len(self.inference.prompts.action_completion(z[0])) for z in actions)
        # with replay this is SFT on the merged data, without it SFT continued on pseudo-labels (arXiv:2506.06006)
        values = self.supervised(Role.FWM, {Role.FWM: 1.0}, [*labelled, *batch.labelled], "nll", epoch)
        return values | {"generated_tokens": float(generated)}

    def swirl(self, role: Role, batch: Batch, epoch: int, step: Callable[[bool], None]) -> tuple[Experience, dict[str, float]]:
        """One GRPO step of a policy (arXiv:2602.06130, Algorithm 1).

        Args:
            role: the policy.
            batch: state-only pairs, and labelled transitions to replay.
            epoch: of the run.
            step: steps the optimizer; told whether this is the batch's last step.

        Returns:
            The rollouts, and sums to log.

        Raises:
            NonFiniteRewardError: if a reward is not finite and ``skip_nonfinite`` is off.
        """
        settings = self.roles[role]
        with self.inference.world_model.judging(role.opposite):
            experience = collect(
                self.inference,
                role,
                batch.unlabelled,
                settings,
                seed=self.seed,
                epoch=epoch,
                skip_nonfinite=self.skip_nonfinite,
            )
        clock = time.perf_counter()
        reference = self._reference_logprobs(role, experience) if settings.grpo.beta > 0 else None
        experience.seconds["reference"] = time.perf_counter() - clock
        values = experience_values(experience, reference)
        clock = time.perf_counter()
        assert experience.skipped is not None
        mask = (experience.trajectory.mask & ~experience.skipped[..., None]).flatten(0, 1)  # [B*G, T]
        total = sum_over_ranks(normaliser(mask, settings.grpo))
        for inner in range(settings.inner_epochs):
            with self.inference.world_model.use(role, training=True) as model:
                parts = policy_parts(
                    self.inference.scorer,
                    model,
                    experience,
                    settings,
                    reference=reference,
                    normaliser=total,
                    on_policy=inner == 0,
                    constraint=self.inference.constraints.get(role),
                )
                values |= loss_values(self._send(parts, model))
            values |= self._extra(role, experience, batch.labelled, epoch)
            step(inner + 1 == settings.inner_epochs)
        experience.seconds["policy"] = time.perf_counter() - clock
        for part, spent in experience.seconds.items():
            values |= {f"time/{part}": spent, f"time/{part}{COUNT}": 1.0}
        return experience, values

    def _reference_logprobs(self, role: Role, experience: Experience) -> Tensor:
        """Log-probabilities of the members under the reference policy, [B, G, T], at the sampling temperature."""
        with self.inference.world_model.use(REFERENCE) as model:
            scores = self.inference.scorer.score(
                model,
                experience.groups,
                temperature=self.roles[role].sampling.temperature or 1.0,
                constraint=self.inference.constraints.get(role),
            )
        return scores.logprobs.view_as(experience.trajectory.logprobs)

    def _extra(self, role: Role, experience: Experience, replay: Sequence[Transition], epoch: int) -> dict[str, float]:
        """What goes beyond the paper: likelihood of the pairs' own next states, and replay of labelled transitions."""
        settings = self.roles[role]
        values: dict[str, float] = {}
        if settings.nll_weight:
            labelled = _labelled(experience.pairs, experience.actions)
            values |= self.supervised(role, {role: settings.nll_weight}, labelled, "nll", epoch)
        if settings.replay_weight:
            if not replay:
                raise ValueError(f"{role.value}.replay_weight is set, but the data has replay_batch_size 0")
            values |= self.supervised(role, {role: settings.replay_weight}, replay, "replay_nll", epoch)
        return values

    def _send(self, parts: Iterable[LossPart], model: PreTrainedModel) -> dict[str, float]:
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


def _labelled(pairs: Sequence[UnlabelledPair], actions: Sequence[str]) -> list[Transition]:
    """State-only pairs with actions that a model gave them."""
    return [
        Transition(pair.state, pair.next_state, z, pair.context, pair.episode, pair.step)
        for pair, z in zip(pairs, actions, strict=True)
    ]
