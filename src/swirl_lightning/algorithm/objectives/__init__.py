"""The maths of both phases (arXiv:2602.06130): advantages, rewards, GRPO, likelihood and the two variational bounds."""

from swirl_lightning.algorithm.objectives.advantages import group_advantages
from swirl_lightning.algorithm.objectives.bounds import elbo_estimate, mutual_information_bound
from swirl_lightning.algorithm.objectives.grpo import GrpoConfig, GrpoTerms, grpo_loss, normaliser
from swirl_lightning.algorithm.objectives.rewards import sequence_reward
from swirl_lightning.algorithm.objectives.sft import nll_loss

__all__ = [
    "GrpoConfig",
    "GrpoTerms",
    "elbo_estimate",
    "group_advantages",
    "grpo_loss",
    "mutual_information_bound",
    "nll_loss",
    "normaliser",
    "sequence_reward",
]
