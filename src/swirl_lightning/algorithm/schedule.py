"""Which phase an epoch belongs to (arXiv:2602.06130, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swirl_lightning.types import Phase, Role


@dataclass(frozen=True)
class PhaseSchedule:
    """Warm-up epochs, then iterations of phases, one epoch each.

    Attributes:
        warmup_epochs: Supervised epochs on the labelled half.
        iterations: How often ``order`` is repeated.
        order: The phases of one iteration; ``[fwm]`` alone is the paper's one-way ablation. Plain values, as YAML spells
            them: an enum would have to be given by its members' names.
    """

    warmup_epochs: int = 1
    iterations: int = 2
    order: Sequence[Literal["fwm", "idm", "pseudo"]] = ("fwm", "idm")

    def __post_init__(self) -> None:
        """Refuse a schedule that trains nothing.

        Raises:
            ValueError: naming the field that is off.
        """
        if self.warmup_epochs < 0 or self.iterations < 0:
            raise ValueError("schedule: warmup_epochs and iterations must be >= 0")
        if self.total_epochs == 0:
            raise ValueError("schedule: nothing to train, warmup_epochs and iterations are both 0")
        if self.iterations and not self.order:
            raise ValueError("schedule.order is empty: name the phases of an iteration, e.g. [fwm, idm]")
        if unknown := [name for name in self.order if name not in ("fwm", "idm", "pseudo")]:
            raise ValueError(
                f"schedule.order: {unknown[0]!r} is not fwm, idm or pseudo (warm-up epochs are set by warmup_epochs)"
            )

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run."""
        return self.warmup_epochs + self.iterations * len(self.order)

    @property
    def phases(self) -> frozenset[Phase]:
        """Every phase that some epoch belongs to."""
        warmup = {Phase.WARMUP} if self.warmup_epochs else set()
        return frozenset(warmup | {Phase(name) for name in self.order if self.iterations})

    @property
    def policies(self) -> frozenset[Role]:
        """Roles that some GRPO phase trains."""
        return frozenset(Role(phase.value) for phase in self.phases & {Phase.FWM, Phase.IDM})

    def phase(self, epoch: int) -> Phase:
        """Phase of an epoch; epochs past the end repeat the order."""
        if epoch < self.warmup_epochs or not self.order:
            return Phase.WARMUP
        return Phase(self.order[(epoch - self.warmup_epochs) % len(self.order)])

    def iteration(self, epoch: int) -> int:
        """Iteration of an epoch, from 1; 0 during the warm-up."""
        if epoch < self.warmup_epochs:
            return 0
        return (epoch - self.warmup_epochs) // max(1, len(self.order)) + 1

    def starts_iteration(self, epoch: int) -> bool:
        """Whether the epoch is the first of an iteration."""
        return epoch >= self.warmup_epochs and (epoch - self.warmup_epochs) % max(1, len(self.order)) == 0

    def ends_phase(self, epoch: int) -> bool:
        """Whether the models are looked at after an epoch: the warm-up's last one and every later one."""
        return self.phase(epoch) is not Phase.WARMUP or epoch + 1 >= self.warmup_epochs

    def label(self, epoch: int) -> str:
        """Name of the state after a phase's epoch: ``warmup``, ``swirl-1-fwm``, ``swirl-1-idm``, ..."""
        phase = self.phase(epoch)
        return phase.value if phase is Phase.WARMUP else f"swirl-{self.iteration(epoch)}-{phase.value}"
