"""Memory of weights, gradients and moments by storage, against the count of docs/scale.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _model
import _ours
import _shapes
import lightning as L
import torch

from benchmarks.gpu.common import on_gpu
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.objectives.grpo import GrpoConfig
from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.types import SamplingParams
from swirl_lightning.world_model import WorldModelConfig
from swirl_lightning.world_model.prompts import PromptTemplates

COUNT = {"separate": 24, "shared": 24, "adapters": 4}  # bytes a parameter: three models, gradients and moments of one


class _Held(L.Callback):
    """What is held when a step has been taken: the bytes of weights and moments, and of the gradients that there were."""

    def __init__(self) -> None:
        self.gradients = self.others = 0

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.gradients + self.others

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Counts the gradients of a phase."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradients = max(self.gradients, _bytes([p.grad for p in parameters if p.grad is not None]))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Counts the rest."""
        moments = [
            value
            for optimizer in trainer.optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.dim()
        ]
        self.others = max(self.others, _bytes([*pl_module.parameters(), *moments]))


def _bytes(tensors: list[torch.Tensor]) -> int:
    """Of distinct tensors."""
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def measure(place: Path, tiny: bool) -> dict[str, dict[str, float]]:
    """Bytes held by storage, the GPU's peak, and the count."""
    size, shape = _shapes.SIZES["tiny" if tiny else "0.5b"], _shapes.SHAPES["smoke"]
    _model.write(place / "models", size)
    results = {}
    for storage, per_parameter in COUNT.items():
        if on_gpu():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        held = _Held()
        trainer = L.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=2,  # both phases
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[held],
        )
        trainer.fit(_module(place / "models", storage, shape), _ours.Batches(shape, 1, size.vocab))
        peak = torch.cuda.max_memory_allocated() if on_gpu() else 0
        results[storage] = {"held": held.bytes, "counted": per_parameter * size.parameters, "peak": peak}
    return results


def _module(models: Path, storage: Any, shape: _shapes.Shape) -> SwirlModule:
    def settings(tokens: int) -> RoleSettings:
        sampling, grpo = SamplingParams(max_new_tokens=tokens), GrpoConfig(beta=_shapes.BETA)
        return RoleSettings(sampling=sampling, group_size=shape.group, grpo=grpo, truncated="reward")

    return SwirlModule(
        WorldModelConfig(base=str(models / "fwm"), storage=storage),
        tokenizer=str(models / "tokenizer"),
        prompts=PromptTemplates(fwm=("{state} {action}",), idm=("{state} {next_state}",)),
        max_prompt_tokens=shape.state + shape.next_state,
        schedule=PhaseSchedule(warmup_epochs=0, iterations=1),
        fwm=settings(shape.next_state),
        idm=settings(shape.action),
        token_budget=4096,
        seed=0,
    )


def table(results: dict[str, dict[str, float]]) -> str:
    """Held against counted."""
    lines = ["| storage | counted (docs/scale.md) | held | ratio | peak of the GPU |", "|---|---|---|---|---|"]
    for storage, found in results.items():
        cells = [f"{found[name] / 1e9:.3g} GB" for name in ("counted", "held")]
        peak = f"{found['peak'] / 1e9:.3g} GB" if found["peak"] else ""
        lines.append(f"| `{storage}` | {' | '.join(cells)} | {found['held'] / found['counted']:.2f} | {peak} |")
    return "\n".join(lines)
