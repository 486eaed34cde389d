"""SWIRL itself (arXiv:2602.06130, Algorithm 1): the module, its schedule, rollouts, steps and objectives."""
