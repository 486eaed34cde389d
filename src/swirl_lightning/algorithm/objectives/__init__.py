"""The maths of both phases (arXiv:2602.06130): advantages, rewards, GRPO, closed form, likelihood and the two bounds."""

from swirl_lightning.algorithm.objectives.bounds import elbo_estimate, mutual_information_bound
from swirl_lightning.algorithm.objectives.grpo import GrpoConfig, GrpoTerms, group_advantages, grpo_loss, normaliser
from swirl_lightning.algorithm.objectives.posterior import Candidates, Posterior, solve
from swirl_lightning.algorithm.objectives.rewards import sequence_reward

__all__ = [
    "Candidates",
    "GrpoConfig",
    "GrpoTerms",
    "Posterior",
    "elbo_estimate",
    "group_advantages",
    "grpo_loss",
    "mutual_information_bound",
    "normaliser",
    "sequence_reward",
    "solve",
]
