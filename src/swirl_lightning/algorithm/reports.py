"""What a module says besides training: values of a step, what broke one, and what validate, test and predict ask for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from typing_extensions import override

from swirl_lightning.algorithm.phase_log import write_sample
from swirl_lightning.algorithm.steps import PhaseSteps
from swirl_lightning.types import Batch, Phase, Role, Transition
from swirl_lightning.world_model.inference import Inference


class ReportingModule(L.LightningModule):
    """The logging and evaluation hooks of a module that holds both roles."""

    inference: Inference
    steps: PhaseSteps
    nonfinite: Literal["raise", "skip"]
    skipped_parts: int  # losses and gradients of this step that were not finite
    last_values: Mapping[str, float]  # what the last step logged, for callbacks
    _batch: Batch  # this step's

    @property
    @abstractmethod
    def phase(self) -> Phase:
        """Phase of the current epoch."""

    @property
    @abstractmethod
    def run_seed(self) -> int:
        """Seed of rollouts."""

    def log_values(self, phase: Phase, values: dict[str, float], size: int) -> None:
        """Logs the values of a step, and a few of them in the progress bar."""
        self.last_values = values
        size = max(1, size)  # a rank's share may be empty; the values are of all ranks
        self.log_dict({f"{phase.value}/{name}": value for name, value in values.items()}, batch_size=size)
        bar = {name: values[name] for name in ("reward", "kl", "nll") if name in values}
        self.log_dict({f"bar/{name}": value for name, value in bar.items()}, prog_bar=True, logger=False, batch_size=size)

    def report_nonfinite(self, what: str, value: float) -> None:
        """Ends the run where a loss or gradient is not finite, or counts it; see ``nonfinite``."""
        place = f"phase {self.phase.value}, epoch {self.current_epoch}, step {self.global_step}"
        if self.nonfinite == "raise":
            self.write_sample({"what": what, "value": repr(value), "place": place})
            raise FloatingPointError(
                f"the {what} is {value} in {place}; lower the learning rate, or set model.nonfinite=skip to leave it out"
            )
        self.skipped_parts += 1

    def write_sample(self, sample: dict[str, object]) -> None:
        """Writes what gave a number that is not finite into the run folder."""
        # one rank may be alone here: Trainer.log_dir and LightningModule.print need or favour others
        rank = f"-rank{self.global_rank}" if self.trainer.world_size > 1 else ""
        name = f"nonfinite-epoch{self.current_epoch}-step{self.global_step}{rank}.json"
        write_sample(Path(self.trainer.default_root_dir) / name, sample, self._batch)

    def _evaluation_step(self, batch: Sequence[Transition], split: str) -> None:
        for role in Role:
            rows = [[self.steps.row(role, transition, self.current_epoch)] for transition in batch]
            scores = self.inference.score_rows(role, rows)
            tokens = int(scores.mask.sum())
            nll = -float(scores.logprobs.sum()) / max(1, tokens)
            self.log(f"{split}/{role.value}_nll", nll, batch_size=tokens, sync_dist=True)  # a mean over all tokens

    @override
    def validation_step(self, batch: Sequence[Transition], batch_idx: int) -> None:
        """Teacher-forced negative log-likelihood of both roles per token, ``val/fwm_nll`` and ``val/idm_nll``."""
        self._evaluation_step(batch, "val")

    @override
    def test_step(self, batch: Sequence[Transition], batch_idx: int) -> None:
        """Teacher-forced negative log-likelihood of both roles per token, ``test/fwm_nll`` and ``test/idm_nll``."""
        self._evaluation_step(batch, "test")

    @override
    def predict_step(self, batch: Sequence[Transition], batch_idx: int) -> list[dict[str, Any]]:
        """Samples a next state and an action for every transition."""
        states = self.inference.predict_states(batch, [t.action for t in batch], seed=self.run_seed)
        actions = self.inference.infer_actions(batch, seed=self.run_seed)
        return [
            {"episode": t.episode, "step": t.step, "predicted_state": y[0], "inferred_action": z[0]}
            for t, y, z in zip(batch, states, actions, strict=True)
        ]
