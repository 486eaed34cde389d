"""What YAML says about a role as policy: typed, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from swirl_lightning.algorithm.objectives.grpo import GrpoConfig
from swirl_lightning.algorithm.proposals import Proposals
from swirl_lightning.algorithm.rewards import JudgeLogprob, RewardPart
from swirl_lightning.codecs.constraints import ConstraintSpec
from swirl_lightning.types import SamplingParams

Objective = Literal["grpo", "posterior", "elbo", "none"]


@dataclass(frozen=True)
class Gate:
    """Which pairs a policy learns from: those that meet all conditions, by their best candidate alone; the others wait.

    Without any condition it learns from all pairs, softly weighted. An FWM averages wrong labels away, and what it can already
    explain teaches it nothing; an IDM repeats wrong labels, so it needs pure ones.

    Attributes:
        confidence: Least weight of the best candidate; 0 is no condition.
        agreement: The best candidate is the same for both models (for the FWM's, actions count as often as labels have
            them). What two models agree on is nearly always right, but tells a policy little that is new.
        explained: The next state is likelier with the best candidate than with an unknown action, as
            ``log P(y|x,z) > log P(y|x)``: for free text, where all candidates may be wrong. Needs a ``state_only_weight``.
    """

    confidence: float = 0.0
    agreement: bool = False
    explained: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the field.
        """
        if not 0 <= self.confidence < 1:
            raise ValueError(f"posterior.gate.confidence must lie in [0, 1), got {self.confidence}")

    @property
    def open(self) -> bool:
        """Whether there is no condition."""
        return not (self.confidence or self.agreement or self.explained)


@dataclass(frozen=True)
class PosteriorConfig:
    """How a phase's objective is solved in closed form, ``q* ~ pi_ref exp(reward / beta)``.

    Attributes:
        beta: Weight of the divergence to the reference policy, as in GRPO.
        temperature: Of the IDM in the posterior of the latent action; each role has its own (the FWM with ``elbo``). An IDM
            that knows few labels by heart is far too sure; above 1, what the FWM says counts for more:
            ``q* ~ pi_ref^(1/T) p(z)^(1-1/T) exp(reward / beta)``, p being how common actions are in the labels. 1 is the
            paper's objective; ``.inf`` asks the FWM alone: with ``JudgeLogprob`` as a sum and ``beta: 1``, by Bayes' rule.
        calibrate: Fit ``temperature`` to so many validation pairs when the phase begins; 0 takes what is given.
        greedy: Whether the IDM's greedy answer is a candidate (IDM only).
        draws: Candidate actions that the IDM draws for a pair (IDM only; the FWM's candidates are a group of ``group_size`` and
            the observed next state).
        proposals: Where more candidate actions come from (IDM only).
        gate: Which pairs are learned from; each role has its own (the FWM with ``elbo``).
        least_weight: Candidates with less weight are left out of the likelihood, which saves their computation.
    """

    beta: float = 0.1
    temperature: float = 1.0
    calibrate: int = 0
    greedy: bool = True
    draws: int = 8
    proposals: Sequence[Proposals] = ()
    gate: Gate = Gate()
    least_weight: float = 1e-3

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the field, its value and what it may be.
        """
        if not self.beta > 0:
            raise ValueError(f"posterior.beta must be positive, got {self.beta}")
        if not self.temperature > 0:
            raise ValueError(f"posterior.temperature must be positive, got {self.temperature}")
        for name in ("draws", "calibrate"):
            if getattr(self, name) < 0:
                raise ValueError(f"posterior.{name} must be >= 0, got {getattr(self, name)}")
        if not (self.greedy or self.proposals):
            raise ValueError("posterior: without greedy there must be proposals, or a pair may have no candidate")
        if not 0 <= self.least_weight < 1:
            raise ValueError(f"posterior.least_weight must lie in [0, 1), got {self.least_weight}")


@dataclass(frozen=True)
class RoleSettings:
    """How a role is trained when it is the policy, and how it is sampled.

    Attributes:
        sampling: How completions are drawn.
        objective: ``grpo``, the paper's; ``posterior``, the same objective solved in closed form and learned by weighted
            likelihood; ``elbo`` (FWM only), likelihood of the observed next state, summed over the IDM's ``posterior`` of the
            latent action; ``none``, only the supervised terms that have a weight.
        group_size: G, completions per prompt.
        grpo: Clipping, KL and aggregation.
        posterior: Candidates and divergence of the closed form; the IDM's also give ``elbo`` and dreams their actions.
        rewards: Parts of the reward with their weights; none is the paper's, the judge's mean log-probability per token.
        anchor: Whether the observed next state joins each group as one more member (FWM only).
        advantage: Divide by the group's standard deviation (``std``) or only centre (``none``).
        truncated: What a completion is worth that was cut at ``max_new_tokens``. ``mask``: nothing is learned from it, and its
            group is compared without it (overlong filtering, DAPO, arXiv:2503.14476), as long as two members ended; a weak
            pair, of which hardly any do, is compared by what there is. ``floor``: the least that each part of the reward gives.
            ``reward``: that of what there is, as if it had ended (the released code).
        inner_epochs: Optimisation passes over one rollout.
        nll_weight: Weight of ``-log P(y|x,z)`` per token on the pairs' own next states (FWM only): maximising the ELBO over
            theta is exactly this likelihood. 0 is the paper.
        dream_weight: Weight of the supervised loss on the FWM's own transitions ``(x, z, FWM(x, z))`` (IDM only): z is right
            wherever the FWM is. 0 is the paper.
        dream_label_share: Share of the dreams whose action is drawn from the labels, not from the posterior.
        state_only_weight: Weight of ``log P(y|x)`` of the phase's own pairs, as in the warm-up (FWM only). 0 is the paper.
        replay_weight: Weight of the supervised loss on labelled warm-up transitions; the data's ``replay_batch_size`` says
            how many a step. 0 is the paper.
        constraint: Which tokens the role may emit; None for all.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    objective: Objective = "grpo"
    group_size: int = 16
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    posterior: PosteriorConfig = field(default_factory=PosteriorConfig)
    rewards: Sequence[RewardPart] = ()
    anchor: bool = False
    advantage: Literal["std", "none"] = "std"
    truncated: Literal["reward", "mask", "floor"] = "mask"
    inner_epochs: int = 1
    nll_weight: float = 0.0
    dream_weight: float = 0.0
    dream_label_share: float = 0.2
    state_only_weight: float = 0.0
    replay_weight: float = 0.0
    constraint: ConstraintSpec | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the field, its value and what it may be.
        """
        if self.group_size < 2:
            raise ValueError(f"group_size must be at least 2, got {self.group_size}: advantages compare a group's members")
        if self.truncated not in ("reward", "mask", "floor"):
            raise ValueError(f"truncated must be 'reward', 'mask' or 'floor', got {self.truncated!r}")
        judges = [part.reward for part in self.reward_parts if isinstance(part.reward, JudgeLogprob)]
        if self.truncated == "floor" and any(judge.floor is None for judge in judges):
            raise ValueError("truncated: floor needs the floor of JudgeLogprob, which is None")
        if self.inner_epochs < 1:
            raise ValueError(f"inner_epochs must be at least 1, got {self.inner_epochs}")
        if min(self.nll_weight, self.replay_weight, self.dream_weight, self.state_only_weight) < 0:
            raise ValueError("nll_weight, replay_weight, dream_weight and state_only_weight must be >= 0")
        if not 0 <= self.dream_label_share <= 1:
            raise ValueError(f"dream_label_share must lie in [0, 1], got {self.dream_label_share}")

    @property
    def reward_parts(self) -> Sequence[RewardPart]:
        """The parts of the reward, the paper's where none are named."""
        return self.rewards or (RewardPart(JudgeLogprob()),)

    @property
    def anchored(self) -> bool:
        """Whether the observed next state is a member of each group."""
        return self.anchor or self.objective == "posterior"

    @property
    def needs_reference(self) -> bool:
        """Whether the objective reads the reference policy."""
        return self.objective in ("posterior", "elbo") or (self.objective == "grpo" and self.grpo.beta > 0)

    @property
    def beside(self) -> float:
        """Weight of all supervised terms beside the objective."""
        return self.nll_weight + self.dream_weight + self.replay_weight
