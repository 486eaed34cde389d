"""Steps of phases whose objective is solved in closed form: score candidates, weigh them, learn by weighted likelihood.

Where Algorithm 1 draws a group and compares, these phases ask both models about every candidate. See
:mod:`swirl_lightning.algorithm.objectives.posterior` for the optimum and :mod:`swirl_lightning.algorithm.candidates` for the
candidates. Plain torch: no Lightning here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from swirl_lightning.algorithm.candidates import LatentPosterior, dream, infer_posterior, member_posterior
from swirl_lightning.algorithm.experience import Experience
from swirl_lightning.algorithm.phase_log import experience_values, mean_of, posterior_values, timed, times
from swirl_lightning.algorithm.steps import PhaseSteps
from swirl_lightning.types import Batch, Role, ScoredRow, Transition, UnlabelledPair


@dataclass(frozen=True)
class ClosedForm:
    """Takes the steps of closed-form phases, with the losses and the optimizer of :class:`PhaseSteps`.

    Attributes:
        steps: losses and optimizer.
        actions: of all labels: how common each is, and what dreams may be about.
    """

    steps: PhaseSteps
    actions: Sequence[str] = ()

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
        steps = self.steps
        settings = steps.roles[Role.IDM]
        return infer_posterior(steps.inference, pairs, settings, seed=steps.seed, labels=self.labels, skip_nonfinite=True)

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
        settings, skip = steps.roles[role], steps.skip_nonfinite
        with steps.inference.world_model.judging(role.opposite):
            with timed(seconds, "posterior"):
                latent = infer_posterior(
                    steps.inference,
                    batch.unlabelled,
                    steps.roles[Role.IDM],
                    seed=steps.seed,
                    epoch=epoch,
                    labels=self.labels,
                    gate=settings.posterior.gate,
                    reference=role if settings.needs_reference else None,
                    skip_nonfinite=skip,
                )
            with timed(seconds, "dream"):
                dreams, dreamt = self._dreams(role, latent, epoch)
        sums = posterior_values(latent.posterior, latent.rewards) | {"generated_tokens": float(latent.tokens + dreamt)}
        sums |= mean_of("trusted_share", latent.trusted)
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
