"""Rewards that are not finite, with the sample that gave them."""

from __future__ import annotations

from swirl_lightning.algorithm.experience import Rollouts


class NonFiniteRewardError(FloatingPointError):
    """A judge returned a reward that is not finite.

    Args:
        sample: The offending sample, ready to be written out.
    """

    def __init__(self, sample: dict[str, object]) -> None:
        super().__init__(
            f"the {sample['judge']} gave the reward {sample['reward']} for episode {sample['episode']!r} step "
            f"{sample['step']}: the judge's weights or its input are broken (model.nonfinite=skip leaves such members out)"
        )
        self.sample = sample


def sample_of(rollouts: Rollouts, b: int, k: int, reward: float) -> dict[str, object]:
    """Member ``k`` of pair ``b``, ready to be written out."""
    pair, latent = rollouts.pairs[b], rollouts.latent
    return {
        "policy": rollouts.role.value,
        "judge": rollouts.role.opposite.value,
        "reward": reward,
        "episode": pair.episode,
        "step": pair.step,
        "state": repr(pair.state),
        "next_state": repr(pair.next_state),
        "latent_action": None if latent is None else latent.actions[b],
        "completion": repr(rollouts.samples[b][k]),
    }
