"""GRPO (arXiv:2602.06130, Section 3; arXiv:2402.03300): advantages, and a loss in parts that add up to that of the whole batch.

Left out on purpose: KL in the reward, entropy bonus, dual clipping.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Kl = Literal["k1", "k2", "k3"]
Aggregation = Literal["sequence", "token", "constant"]
Ratio = Literal["token", "sequence"]


@dataclass(frozen=True)  # no slots: jsonargparse reads defaults through vars()
class GrpoConfig:
    """Settings of the GRPO loss.

    Attributes:
        eps_low: The ratio is clipped below at ``1 - eps_low``.
        eps_high: The ratio is clipped above at ``1 + eps_high``.
        beta: Weight of the KL term to the reference policy; 0 needs no reference.
        kl: Estimator of the KL term (http://joschu.net/blog/kl-approx.html). On-policy, with next-token
            distributions ``p`` of the policy and ``q`` of the reference, its expected *gradient* is that of
            ``KL(q || p)`` for k3 and that of ``KL(p || q)`` for k2, prefixes held fixed; it is zero for k1, which
            regularises nothing: a warning says so. The expected *value* is ``KL(p || q)`` for k1 and k3.
        aggregation: Average over each sequence's tokens, then over sequences (``sequence``, GRPO's own); over all
            tokens (``token``, DAPO); or sum over tokens, divided by sequences times ``max_tokens`` (``constant``, Dr. GRPO).
        ratio: Importance ratio per token, or their geometric mean over the sequence (``sequence``, GSPO, arXiv:2507.18071).
        max_tokens: The constant length, with ``aggregation="constant"`` only.
    """

    eps_low: float = 0.2
    eps_high: float = 0.2
    beta: float = 0.1
    kl: Kl = "k3"
    aggregation: Aggregation = "sequence"
    ratio: Ratio = "token"
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the field, its value and what it may be.
        """
        for name, choices in (("kl", Kl), ("aggregation", Aggregation), ("ratio", Ratio)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"grpo.{name} must be one of {get_args(choices)}, got {value!r}")
        if not 0 < self.eps_low <= 1:
            raise ValueError(f"grpo.eps_low must lie in (0, 1], got {self.eps_low}")
        if not self.eps_high > 0:
            raise ValueError(f"grpo.eps_high must be positive, got {self.eps_high}")
        if not self.beta >= 0:
            raise ValueError(f"grpo.beta must be >= 0 (0 turns the KL term off), got {self.beta}")
        if self.kl == "k1" and self.beta > 0:
            warnings.warn(
                f"grpo.kl=k1 holds nothing back: the expected gradient of its term is zero, so beta={self.beta} adds noise "
                "only; set grpo.kl to k3 or k2",
                stacklevel=2,
            )
        if self.aggregation == "constant" and (self.max_tokens is None or self.max_tokens < 1):
            raise ValueError(f"grpo.max_tokens must be at least 1 with aggregation='constant', got {self.max_tokens}")
        if self.aggregation != "constant" and self.max_tokens is not None:
            raise ValueError(f"grpo.max_tokens has no meaning with aggregation={self.aggregation!r}: leave it out")


def group_moments(rewards: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sample deviation (divided by n - 1) of each group's counted members.

    Args:
        rewards: [B, G]; what is not counted may be anything.
        counted: bool [B, G].

    Returns:
        Two tensors [B], 0 where there is nothing to average.
    """
    n = counted.sum(1)
    mean = rewards.masked_fill(~counted, 0.0).sum(1) / n.clamp(min=1)
    deviations = (rewards - mean[:, None]).masked_fill(~counted, 0.0)
    return mean, (deviations.square().sum(1) / (n - 1).clamp(min=1)).sqrt()


def group_advantages(
    rewards: Tensor, *, counted: Tensor | None = None, normalise: Literal["std", "none"] = "std", eps: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """How much better each member of a group is than its group: ``(r - mean) / (std + eps)``.

    The deviation is the sample one (divided by G - 1, as in TRL). Centring on the group's own mean shrinks the expected
    policy gradient by (G - 1) / G, because a member's reward is part of its own baseline; with ``none`` that is the
    only difference to the gradient of the expected reward.

    Args:
        rewards: [B, G].
        counted: bool [B, G], members that are compared; None for all. Another has no part in its group's mean and deviation.
        normalise: ``std`` divides by the group's standard deviation, ``none`` only centres.
        eps: added to the standard deviation.

    Returns:
        Advantages [B, G], exactly 0 for members that do not count and in groups whose members were all rewarded alike, and
        bool [B] that is True there.

    Raises:
        ValueError: for a group of one, a wrong shape, an unknown ``normalise``, or counted rewards that are not finite.
    """
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be [B, G], got shape {tuple(rewards.shape)}")
    if rewards.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 members to be compared, got rewards of shape {tuple(rewards.shape)}")
    if normalise not in ("std", "none"):
        raise ValueError(f"normalise must be 'std' or 'none', got {normalise!r}")
    counted = torch.ones_like(rewards, dtype=torch.bool) if counted is None else counted
    broken = counted & ~torch.isfinite(rewards)
    if bool(broken.any()):
        at = [tuple(index) for index in broken.nonzero().tolist()]
        raise ValueError(f"rewards are not finite at (group, member) {at[:10]}{' ...' if len(at) > 10 else ''}")
    highest, lowest = rewards.masked_fill(~counted, -torch.inf).amax(1), rewards.masked_fill(~counted, torch.inf).amin(1)
    zero_spread = highest <= lowest  # [B]
    mean, deviation = group_moments(rewards, counted)
    advantages = rewards - mean[:, None]  # [B, G]
    if normalise == "std":
        advantages = advantages / (deviation[:, None] + eps)
    return advantages.masked_fill(zero_spread[:, None] | ~counted, 0.0), zero_spread


@dataclass(frozen=True, slots=True)
class GrpoTerms:
    """Loss of a micro-batch, and sums to be added over micro-batches and ranks."""

    loss: Tensor  # scalar
    sums: dict[str, float]
    """``loss``; over tokens: ``kl`` (estimates, unweighted; with a reference only), ``ratio``, ``clip_low`` and
    ``clip_high`` (tokens that the clip cut off from the gradient); and the number of ``tokens`` to divide them by."""


def normaliser(mask: Tensor, config: GrpoConfig) -> float:
    """Denominator of a whole batch's loss; denominators of ranks add up.

    Args:
        mask: bool [N, T] of the whole batch; rows without a token do not count.
        config: says what is averaged over.

    Returns:
        Number of sequences, of tokens, or of sequences times ``max_tokens``.
    """
    if config.aggregation == "token":
        return float(mask.sum())
    sequences = float(mask.any(-1).sum())
    return sequences * config.max_tokens if config.max_tokens is not None else sequences


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: GrpoConfig,
    *,
    ref_logprobs: Tensor | None,
    normaliser: float,
    weights: Tensor | None = None,
) -> GrpoTerms:
    """``-min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A) + beta KL``, aggregated over tokens.

    The losses of any split of a batch's rows add up to the loss of the batch, because all share its ``normaliser``.

    Args:
        logprobs: [N, T] of the policy, at the sampling temperature and inside the constraint, with gradient.
        old_logprobs: [N, T] of the policy that sampled; ``logprobs.detach()`` while on-policy.
        advantages: [N].
        mask: bool [N, T], True on sampled tokens.
        config: clipping, KL, aggregation, ratio.
        ref_logprobs: [N, T] of the reference policy; None with ``beta=0`` only.
        normaliser: ``normaliser(mask, config)`` of the whole batch.
        weights: [N, T] factors of the policy term, e.g. truncated importance weights where another engine sampled.

    Returns:
        The loss and additive statistics.

    Raises:
        ValueError: for shapes that do not fit, a missing reference, or a normaliser that is not positive.
    """
    _check(logprobs, old_logprobs, advantages, mask, config, ref_logprobs, weights)
    if not normaliser > 0:
        if bool(mask.any()):
            raise ValueError(f"normaliser must be positive where tokens are trained, got {normaliser}")
        normaliser = 1.0  # every member was left out: the loss is an exact 0 with zero gradients
    log_ratio = (logprobs - old_logprobs.detach()).masked_fill(~mask, 0.0)  # [N, T]
    lengths = mask.sum(-1, keepdim=True).clamp(min=1)  # [N, 1]
    if config.ratio == "sequence":  # value of the sequence's ratio, gradient of the token (GSPO-token)
        mean = log_ratio.sum(-1, keepdim=True) / lengths  # [N, 1]
        log_ratio = mean.detach() + log_ratio - log_ratio.detach()  # [N, T]
    ratio = log_ratio.exp()
    gain = advantages.detach()[:, None].to(ratio.dtype)  # [N, 1]
    clipped = ratio.clamp(1 - config.eps_low, 1 + config.eps_high)
    per_token = -torch.minimum(ratio * gain, clipped * gain)  # [N, T]
    if weights is not None:
        per_token = per_token * weights.detach()
    kl = None
    if ref_logprobs is not None:
        kl = _kl((ref_logprobs.detach() - logprobs).masked_fill(~mask, 0.0), config.kl)  # [N, T]
        if config.beta > 0:
            per_token = per_token + config.beta * kl
    per_token = per_token.masked_fill(~mask, 0.0)
    if config.aggregation == "sequence":
        per_token = per_token / lengths
    loss = per_token.sum() / normaliser  # [N, T] -> scalar
    return GrpoTerms(loss, _sums(loss, ratio, gain, mask, kl, config))


def _kl(log_ratio: Tensor, kind: Kl) -> Tensor:
    """Estimates ``KL(policy || reference)`` per token from ``log_ratio = log reference - log policy`` [N, T]."""
    if kind == "k1":
        return -log_ratio
    if kind == "k2":
        return log_ratio.square() / 2
    return torch.expm1(log_ratio) - log_ratio


@torch.no_grad()
def _sums(loss: Tensor, ratio: Tensor, gain: Tensor, mask: Tensor, kl: Tensor | None, config: GrpoConfig) -> dict[str, float]:
    """Additive statistics; one transfer from the device."""
    parts = {
        "loss": loss,
        "ratio": (ratio * mask).sum(),
        "clip_low": ((ratio < 1 - config.eps_low) & (gain < 0) & mask).sum(),
        "clip_high": ((ratio > 1 + config.eps_high) & (gain > 0) & mask).sum(),
        "tokens": mask.sum(),
    }
    if kl is not None:
        parts["kl"] = kl.sum()
    values = torch.stack([part.double() for part in parts.values()]).tolist()
    return dict(zip(parts, values, strict=True))


def _check(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: GrpoConfig,
    ref_logprobs: Tensor | None,
    weights: Tensor | None,
) -> None:
    expected = {"old_logprobs": old_logprobs, "mask": mask, "ref_logprobs": ref_logprobs, "weights": weights}
    for name, tensor in expected.items():
        if tensor is not None and tensor.shape != logprobs.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but logprobs has {tuple(logprobs.shape)}")
    if advantages.shape != logprobs.shape[:1]:
        raise ValueError(f"advantages must be [N] = {tuple(logprobs.shape[:1])}, got {tuple(advantages.shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}")
    if config.beta > 0 and ref_logprobs is None:
        raise ValueError(f"beta is {config.beta}, so ref_logprobs is needed: score the rows under the reference policy")
