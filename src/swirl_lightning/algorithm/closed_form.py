"""Steps of phases whose objective is solved in closed form: score candidates, weigh them, learn by weighted likelihood.

Where Algorithm 1 draws a group and compares, these phases ask both models about every candidate. See
:mod:`swirl_lightning.algorithm.objectives.posterior` for the optimum and :mod:`swirl_lightning.algorithm.candidates` for the
candidates. Plain torch: no Lightning here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from swirl_lightning.algorithm.calibration import fit_temperature
from swirl_lightning.algorithm.candidates import (
    LatentPosterior,
    ScoredActions,
    dream,
    infer_posterior,
    member_posterior,
    score_actions,
)
from swirl_lightning.algorithm.experience import Experience
from swirl_lightning.algorithm.phase_log import experience_values, mean_of, posterior_values, timed, times
from swirl_lightning.algorithm.steps import PhaseSteps
from swirl_lightning.types import Batch, Role, ScoredRow, Transition, UnlabelledPair


@dataclass(frozen=True)
class ClosedForm:
    """Takes the steps of closed-form phases, with the losses and the optimizer of :class:`PhaseSteps`.

    Attributes:
        steps: Losses and optimizer.
        actions: Actions of all labels: how common each is, and what dreams may be about.
        temperatures: The IDM's, for the phases in which it was fitted, by role.
    """

    steps: PhaseSteps
    actions: Sequence[str] = ()
    temperatures: dict[str, float] = field(default_factory=dict)

    @cached_property
    def labels(self) -> Counter[str]:
        """How often the labels have each action."""
        return Counter(self.actions)

    def swirl(self, role: Role, batch: Batch, epoch: int) -> tuple[Experience | LatentPosterior, dict[str, float]]:
        """One step of a policy, or several on one set of candidates.

        Args:
            role: the policy.
            batch: state-only pairs, and labelled transitions to replay.
            epoch: of the run.

        Returns:
            The rollouts or the candidate actions, and sums to log.

        Raises:
            NonFiniteRewardError: if a reward is not finite and ``skip_nonfinite`` is off.
        """
        if role is Role.FWM and self.steps.roles[role].objective == "posterior":
            return self._over_states(batch, epoch)
        return self._over_actions(role, batch, epoch)

    def look(self, pairs: Sequence[UnlabelledPair]) -> LatentPosterior:
        """The posterior of the latent action as both models stand, outside of any phase."""
        scored = self._scored(pairs, epoch=0, reference=None, skip=True)
        beta = self.steps.roles[Role.IDM].posterior.beta
        return infer_posterior(self.steps.inference, scored, beta, self._temperature(Role.IDM))

    def calibrate(self, role: Role, held_out: Sequence[Transition], agree: Callable[[float], float]) -> str:
        """Fits the IDM's temperature, for a phase, to what it says of held-out labels as it stands.

        Args:
            role: the phase's policy.
            held_out: labelled transitions; those whose action is no candidate say nothing.
            agree: makes the ranks use one number, whatever another machine's rounding.

        Returns:
            What was found, in words.
        """
        scored = self._scored([t.without_action() for t in held_out], epoch=0, reference=None, skip=True)
        form = self.steps.inference.codec.canonical
        places = [[form(z) for z in actions] for actions in scored.actions]
        there = [b for b, t in enumerate(held_out) if form(t.action) in places[b]]
        index = torch.tensor(there, dtype=torch.int64, device=scored.belief.device)
        truth = torch.tensor([places[b].index(form(held_out[b].action)) for b in there], device=index.device)
        fitted = fit_temperature(scored.candidates.of(index), scored.belief[index], truth.long())
        temperature = agree(fitted if there else self.steps.roles[role].posterior.temperature)
        self.temperatures[role.value] = temperature
        known = f"{len(there)} of {len(held_out)} validation pairs"
        return f"latent actions: an IDM at temperature {temperature:.3g} is as sure as it may be, on {known}"

    def _temperature(self, role: Role) -> float:
        return self.temperatures.get(role.value, self.steps.roles[role].posterior.temperature)

    def _scored(self, pairs: Sequence[UnlabelledPair], *, epoch: int, reference: Role | None, skip: bool) -> ScoredActions:
        steps = self.steps
        return score_actions(
            steps.inference,
            pairs,
            steps.roles[Role.IDM],
            seed=steps.seed,
            epoch=epoch,
            labels=self.labels,
            reference=reference,
            skip_nonfinite=skip,
        )

    def _over_states(self, batch: Batch, epoch: int) -> tuple[Experience, dict[str, float]]:
        """Phase I: candidates are a group of rollouts and the observed next state."""
        steps, role = self.steps, Role.FWM
        settings = steps.roles[role]
        with steps.inference.world_model.judging(role.opposite):
            experience = steps.collect(role, batch, epoch)
        with timed(experience.seconds, "reference"):
            prior = steps.reference_logprobs(experience, 1.0).sum(-1)  # [B, G + 1]
        posterior = member_posterior(experience, prior, settings.posterior.beta)
        groups = [
            [(row, w) for row, w in zip(rows, weights, strict=True) if w > settings.posterior.least_weight]
            for rows, weights in zip(experience.rollouts.rows, posterior.weights.tolist(), strict=True)
        ]
        sums = experience_values(experience, None) | posterior_values(posterior, experience.judgement.rewards)
        sums |= mean_of("anchor_weight", posterior.weights[:, -1])
        with timed(experience.seconds, "policy"):
            for inner in range(settings.inner_epochs):
                sums |= steps.weighted(role, groups, "weighted_nll")
                sums |= steps.beyond_the_paper(role, experience, batch, epoch)
                steps.optimise(inner + 1 == settings.inner_epochs)
        return experience, sums | times(experience.seconds)

    def _over_actions(self, role: Role, batch: Batch, epoch: int) -> tuple[LatentPosterior, dict[str, float]]:
        """Phase II, or the FWM's likelihood: candidates are actions, weighted by the posterior of the latent one."""
        steps, seconds = self.steps, dict[str, float]()
        settings = steps.roles[role]
        with steps.inference.world_model.judging(role.opposite):
            with timed(seconds, "posterior"):
                reference = role if settings.needs_reference else None
                scored = self._scored(batch.unlabelled, epoch=epoch, reference=reference, skip=steps.skip_nonfinite)
                latent = infer_posterior(
                    steps.inference,
                    scored,
                    steps.roles[Role.IDM].posterior.beta,
                    self._temperature(role),
                    settings.posterior.gate,
                    epoch=epoch,
                    reference=reference,
                )
            with timed(seconds, "dream"):
                dreams, dreamt = self._dreams(role, latent, epoch)
        sums = posterior_values(latent.posterior, latent.rewards) | {"generated_tokens": float(latent.tokens + dreamt)}
        sums |= mean_of("trusted_share", latent.trusted)
        if (fitted := self.temperatures.get(role.value)) is not None:
            sums |= mean_of("idm_temperature", torch.tensor(fitted))
        for name, values in latent.parts.items():
            sums |= mean_of(f"reward/{name}", (values * latent.posterior.weights)[latent.posterior.weights > 0])
        groups = self._rows(role, latent, epoch)
        with timed(seconds, "policy"):
            for inner in range(settings.inner_epochs):
                if settings.objective != "none":
                    sums |= steps.weighted(role, groups, "weighted_nll")
                if settings.dream_weight:
                    sums |= steps.supervised(role, {role: settings.dream_weight}, dreams, "dream_nll", epoch)
                sums |= steps.beyond_the_paper(role, None, batch, epoch)
                steps.optimise(inner + 1 == settings.inner_epochs)
        return latent, sums | times(seconds)

    def _dreams(self, role: Role, latent: LatentPosterior, epoch: int) -> tuple[list[Transition], int]:
        settings = self.steps.roles[role]
        if not settings.dream_weight:
            return [], 0
        share, seed = settings.dream_label_share, self.steps.seed
        return dream(self.steps.inference, latent, self.actions, share, seed=seed, epoch=epoch)

    def _rows(self, role: Role, latent: LatentPosterior, epoch: int) -> list[list[tuple[ScoredRow, float]]]:
        """What the policy learns of each pair, with weights: the action (IDM), or the next state after it (FWM)."""
        builder = self.steps.inference.prompts
        groups = []
        for pair, targets in zip(latent.pairs, latent.targets(self.steps.roles[role].posterior), strict=True):
            wording = builder.wording_of(pair, role, epoch)
            if role is Role.FWM:
                groups.append([(builder.fwm_row(pair, z, pair.next_state, wording), w) for z, w in targets])
            else:
                groups.append([(builder.idm_row(pair, pair.next_state, z, wording), w) for z, w in targets])
        return groups
