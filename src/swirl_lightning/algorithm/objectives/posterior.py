"""A phase's KL-regularised objective solved in closed form over a finite set of candidates.

The phase maximises ``E_{z~q}[r(z)] - beta KL(q || pi_ref)`` (arXiv:2602.06130, Section 3 and Theorem 3.2). Its optimum is
known: ``q*(z) ~ pi_ref(z) exp(r(z) / beta)``. Over candidates it needs scores only, and the policy learns q* by weighted
likelihood (MPO, arXiv:1806.06920; reweighted wake-sleep, arXiv:1406.2751). B pairs, N candidates of each at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """What q* is spread over: every candidate once.

    Candidates with count 0 are *given* (a greedy answer, actions seen in labels, the observed next state): they stand in the
    set whatever was drawn. Drawn ones stand for all that was not given, each with the importance of its draws. So q* is exact
    where everything is given, and converges to the optimum with the number of draws where not.
    """

    prior: Tensor  # float [B, N], log pi_ref of whole sequences
    mask: Tensor  # bool [B, N], False where there is no candidate
    counts: Tensor  # int64 [B, N], how often a candidate was drawn; 0 for given ones
    proposal: Tensor  # float [B, N], log-probability that a draw gives the candidate; read where counts > 0
    draws: int  # draws of each pair, those of given candidates included

    def __post_init__(self) -> None:
        """Check what must fit together.

        Raises:
            ValueError: naming the field that does not fit.
        """
        for name in ("mask", "counts", "proposal"):
            if (shape := tuple(getattr(self, name).shape)) != tuple(self.prior.shape):
                raise ValueError(f"{name} has shape {shape}, but prior has {tuple(self.prior.shape)}")
        if bool((empty := ~self.mask.any(-1)).any()):
            raise ValueError(f"pairs {empty.nonzero()[:, 0].tolist()[:10]} have no candidate")
        if bool((self.counts.sum(-1) > self.draws).any()):
            raise ValueError(f"candidates were drawn more often than {self.draws} times a pair")

    def of(self, pairs: Tensor) -> Candidates:
        """The candidates of some pairs, by their indices."""
        return Candidates(self.prior[pairs], self.mask[pairs], self.counts[pairs], self.proposal[pairs], self.draws)


@dataclass(frozen=True, slots=True)
class Posterior:
    """q* over the candidates of each pair."""

    weights: Tensor  # float [B, N], of each pair sum to 1
    entropy: Tensor  # float [B], nats
    effective: Tensor  # float [B], effective number of candidates, 1 / sum w^2
    agreement: Tensor  # bool [B], the reference's best candidate is the reward's best, too
    best: Tensor  # int64 [B], the candidate that weighs most


def solve(
    candidates: Candidates, rewards: Tensor, beta: float, *, belief: Tensor | None = None, temperature: float = 1.0
) -> Posterior:
    """The optimum ``q* ~ pi_ref exp(r / beta)`` of ``E_q[r] - beta KL(q || pi_ref)`` over the candidates.

    With a temperature T above 1 the reference is ``pi_ref^(1/T) p^(1-1/T)``, p being the belief: less sure of itself.

    Args:
        candidates: with their reference log-probabilities.
        rewards: [B, N]; ``-inf`` rules a candidate out.
        beta: weight of the divergence.
        belief: [B, N], log-probability of each candidate before anything is seen, up to a constant; the reward's best candidate
            maximises ``r / beta`` plus it. None is an even one.
        temperature: of the reference policy.

    Returns:
        The posterior, without gradient. A pair of which every candidate is ruled out keeps the reference's weights.

    Raises:
        ValueError: if ``beta`` or ``temperature`` is not positive, or a reward is NaN or ``+inf``.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}: without a divergence the optimum is one candidate")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    prior, mask = candidates.prior.detach(), candidates.mask
    belief = torch.zeros_like(prior) if belief is None else belief
    rewards = rewards.detach().masked_fill(~mask, -math.inf)
    if bool((rewards.isnan() | (rewards == math.inf)).any()):
        at = (rewards.isnan() | (rewards == math.inf)).nonzero().tolist()
        raise ValueError(f"rewards are not finite at (pair, candidate) {at[:10]}{' ...' if len(at) > 10 else ''}")
    reference = prior / temperature + (1 - 1 / temperature) * belief
    base = (reference + _log_importance(candidates)).masked_fill(~mask, -math.inf)  # [B, N]
    tilted = base + rewards / beta
    ruled_out = torch.isneginf(tilted).all(-1, keepdim=True)  # [B, 1]
    weights = torch.softmax(torch.where(ruled_out, base, tilted), dim=-1)  # [B, N]
    entropy = -torch.special.xlogy(weights, weights).sum(-1)
    favourite = prior.masked_fill(~mask, -math.inf).argmax(-1)  # [B]
    alone = rewards / beta + belief  # [B, N]
    agreement = (alone.gather(-1, favourite[:, None])[:, 0] == alone.amax(-1)) & ~ruled_out[:, 0]
    return Posterior(weights, entropy, 1 / weights.square().sum(-1), agreement, weights.argmax(-1))


def _log_importance(candidates: Candidates) -> Tensor:
    """Log of how many equally weighted candidates each stands for, [B, N]: one for a given one, ``count / (draws mu)`` else."""
    drawn = candidates.counts > 0
    share = candidates.counts.clamp(min=1).to(candidates.prior.dtype).log() - math.log(max(1, candidates.draws))
    return torch.where(drawn, share - candidates.proposal, torch.zeros_like(share))
