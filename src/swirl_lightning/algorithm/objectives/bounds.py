"""The two variational bounds, estimated from samples during training (arXiv:2602.06130, Theorems 3.1 and 3.2)."""

from __future__ import annotations

from torch import Tensor


def mutual_information_bound(judged: Tensor, latent_logprob: Tensor) -> Tensor:
    """Estimates a lower bound of ``I(Z; Y' | X)``, which Phase I raises (arXiv:2602.06130, Theorem 3.1).

    Barber-Agakov: ``I(Z; Y'|X) >= H(Z|X) + J``, with ``J = E[log Q(z | x, y')]`` over ``z ~ Q(.|x,y)`` and
    ``y' ~ P(.|x,z)``. The marginal entropy needs ``P~(z|x) = E_y[Q(z|x,y)]``, which samples do not give; but
    ``E[-log Q(z|x,y)] = H(Z|X,Y) <= H(Z|X)``, so with it the sum is still a lower bound, looser by ``I(Z; Y|X)``.
    It rises and falls with ``J`` just the same, as the entropy does not depend on theta.

    The expectation is a lower bound where ``latent_logprob`` belong to the distribution that was sampled. A top-k,
    top-p or min-p cut draws from a narrower one: the entropy term is then too high by the mean of ``-log`` of the mass
    that the cut keeps (for top-p at most ``-log(top_p)`` nats per token).

    Args:
        judged: [n], ``log Q(z | x, y'_k)`` of whole sequences at temperature 1, unclamped.
        latent_logprob: [m], ``log Q(z | x, y)`` of the whole sampled actions, as they were drawn.

    Returns:
        A scalar, in nats per transition; NaN without samples.
    """
    return judged.mean() - latent_logprob.mean()


def elbo_estimate(judged: Tensor, sampled_logprob: Tensor, prior_logprob: Tensor) -> Tensor:
    """Estimates the evidence lower bound that Phase II raises (arXiv:2602.06130, Theorem 3.2).

    ``E_{z ~ Q}[log P(y|x,z)] - KL(Q || prior)``, the divergence estimated from the same samples by its unbiased k1 form
    ``log Q(z) - log prior(z)``. It bounds ``log sum_z prior(z) P(y|x,z)`` from below, in expectation. In training the
    reference policy plays the prior; it sees ``y`` too, so the evidence is then that of this informed prior.

    A top-k, top-p or min-p cut makes ``sampled_logprob`` too low by ``-log`` of the mass that it keeps.

    Args:
        judged: [n], ``log P(y | x, z_k)`` of whole sequences at temperature 1, unclamped.
        sampled_logprob: [n], ``log Q(z_k | x, y)`` of whole sequences, as they were drawn.
        prior_logprob: [n], log-probability of the same sequences under the reference policy, at the same temperature.

    Returns:
        A scalar, in nats per transition; NaN without samples.

    Raises:
        ValueError: if the three do not belong to the same samples.
    """
    if not judged.shape == sampled_logprob.shape == prior_logprob.shape:
        raise ValueError(
            "judged, sampled_logprob and prior_logprob must hold one value a sample, got shapes "
            f"{tuple(judged.shape)}, {tuple(sampled_logprob.shape)}, {tuple(prior_logprob.shape)}"
        )
    return (judged - (sampled_logprob - prior_logprob)).mean()
