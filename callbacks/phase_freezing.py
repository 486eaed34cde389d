"""Only the phase's role learns; everything else is frozen."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.distributed.sharding import local_rows
from swirl_lightning.types import Phase, Role
from swirl_lightning.world_model.pair import JUDGE


class PhaseFreezing(Callback):
    """Freezes the opposite role during each phase, and checks at the phase's end that it did not move.

    Acts from ``on_train_start`` on, never in ``setup``: parameters that are frozen when DDP wraps a module are left out of
    its reducer for good, and diverge silently later. ``swirl fit`` adds this callback by itself.

    Args:
        verify: Compare a checksum of the frozen role's parameters before and after every phase.
    """

    def __init__(self, verify: bool = True) -> None:
        self.verify = verify
        self._before: float | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freeze(_swirl(pl_module))  # a run that resumes inside an epoch sees no on_train_epoch_start

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freeze(_swirl(pl_module))

    @override
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int) -> None:
        if self._before is None:  # after the module's own start of the phase, or where a run resumes
            self._before = self._checksum(_swirl(pl_module))

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        after = self._checksum(_swirl(pl_module))
        if self._before is not None and after != self._before:
            raise RuntimeError(
                f"phase {_swirl(pl_module).phase.value} changed parameters of the frozen role (checksum {self._before} became "
                f"{after}): some callback or optimizer touches them"
            )
        self._before = None

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _swirl(pl_module).world_model.unfreeze()

    @staticmethod
    def _freeze(module: SwirlModule) -> None:
        module.world_model.unfreeze()
        trained = {id(parameter) for parameter in module.phase_parameters()}
        for role in Role:
            for parameter in module.world_model.role_parameters(role):
                parameter.requires_grad_(id(parameter) in trained)

    def _checksum(self, module: SwirlModule) -> float | None:
        """Sum of the frozen role's parameters' sizes; None in the warm-up, where no role is frozen."""
        if not self.verify or module.phase is Phase.WARMUP:
            return None
        shared = module.world_model.config.storage == "shared"
        role = Role.IDM if module.phase is Phase.PSEUDO else Role(module.phase.value).opposite
        frozen = JUDGE if shared else role
        with torch.no_grad():
            parts = (local_rows(p) for p in module.world_model.role_parameters(frozen))
            return float(sum(torch.linalg.vector_norm(part, ord=1, dtype=torch.float64) for part in parts))  # makes no copy


def _swirl(module: L.LightningModule) -> SwirlModule:
    if not isinstance(module, SwirlModule):
        raise TypeError(f"PhaseFreezing needs a SwirlModule, got {type(module).__name__}")
    return module
