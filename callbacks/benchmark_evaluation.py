"""Held-out measures of both roles after the warm-up and after every phase."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from swirl_lightning.callbacks.run_progress import RunProgress
from torchmetrics import Metric
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.phase_end import START, WARMUP, PhaseEnd
from swirl_lightning.evaluation import run_benchmark, standard_decodings
from swirl_lightning.files import METRICS, append_row, drop_later
from swirl_lightning.metrics import Benchmark
from swirl_lightning.types import Transition


class BenchmarkEvaluation(PhaseEnd):
    """Evaluates greedily and as the paper samples; logs scalars and appends lines to ``metrics.jsonl`` in the run folder.

    Scalars are named ``val/fwm_exact_match_greedy`` and the like.

    Evaluates before the first batch of a run without warm-up, after the last warm-up epoch, and after every later epoch. A run
    that resumes drops the lines that were written after its checkpoint.

    Args:
        splits: Which splits, of ``val`` and ``test``. Choose settings on ``val``; ``test`` is for tables. None takes those that
            have transitions.
        best_of: N of best-of-N verification by IDM score, for the models that the phases start from.
        limit: Evaluate at most so many transitions of a split.
        batch_size: Transitions a batch.
        benchmark: Adds the measures of tool answers (``tools``) or of pages (``web``) to those of any text.
        extra: Further measures of predicted next states, by name.
        start: Whether a run without warm-up is evaluated before its first batch, too.
        sampled: Whether to sample, too; greedy answers alone take half the time.
    """

    def __init__(
        self,
        splits: Sequence[str] | None = ("val",),
        best_of: Sequence[int] = (),
        limit: int | None = None,
        batch_size: int = 64,
        benchmark: Benchmark = "text",
        extra: dict[str, Metric] | None = None,
        start: bool = True,
        sampled: bool = True,
    ) -> None:
        if unknown := set(splits or ()) - {"val", "test"}:
            raise ValueError(f"BenchmarkEvaluation.splits: {unknown.pop()!r} is not val or test")
        self.splits, self.best_of, self.limit = None if splits is None else tuple(splits), tuple(best_of), limit
        self.batch_size, self.benchmark, self.extra = batch_size, benchmark, extra
        self.looks_at_start, self.sampled = start, sampled
        self._started, self._cpu_started = time.time(), time.process_time()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SwirlModule)
        self._started, self._cpu_started = time.time(), time.process_time()
        if trainer.is_global_zero:
            drop_later(Path(trainer.default_root_dir) / METRICS, trainer.global_step)
        if not self._splits(pl_module):
            rank_zero_info("the run is not evaluated: its data have no labelled transitions that are held out")
        if self.best_of and not self.sampled:
            raise ValueError("BenchmarkEvaluation.best_of draws next states, so it needs sampled: true")
        for split in self._splits(pl_module):
            if not getattr(pl_module.splits, split):
                raise ValueError(
                    f"BenchmarkEvaluation.splits has {split!r}, but the data have no transitions in it: set "
                    f"data.{split}_fraction, or leave the split out"
                )
        super().on_train_start(trainer, pl_module)

    @override
    def on_phase_end(self, trainer: L.Trainer, module: SwirlModule, label: str) -> None:
        for split in self._splits(module):
            self._evaluate(trainer, module, split, label, self.best_of if label in (START, WARMUP) else ())

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SwirlModule)
        self._evaluate(trainer, pl_module, "test", "test", self.best_of)

    def _evaluate(self, trainer: L.Trainer, module: SwirlModule, split: str, label: str, best_of: Sequence[int]) -> None:
        transitions: Sequence[Transition] = getattr(module.splits, split)[: self.limit]
        began, rows, display = time.time(), [], trainer.progress_bar_callback
        decodings = standard_decodings(module.inference)
        for name, decoding in decodings.items() if self.sampled else [("greedy", decodings["greedy"])]:
            measures = run_benchmark(
                module.inference,
                transitions,
                decoding=decoding,
                best_of=best_of if name == "sampled" else (),
                seed=module.run_seed,
                batch_size=self.batch_size,
                benchmark=self.benchmark,
                extra=self.extra,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                progress=display.counting(f"{label}, {split}, {name}") if isinstance(display, RunProgress) else None,
            ).measures
            rows.append({"decoding": name, **measures})
        if not trainer.is_global_zero:
            return
        place = {"label": label, "split": split, **module.place, "transitions": len(transitions)}
        spent = {
            "seconds": time.time() - began,
            "elapsed": time.time() - self._started,
            "cpu_seconds": time.process_time() - self._cpu_started,
            "generated_tokens": module.generated_tokens,
        }
        for row in rows:
            append_row(Path(trainer.default_root_dir) / METRICS, {**place, **row, **spent}, ("label", "split", "decoding"))
            for logger in trainer.loggers:
                logger.log_metrics(_scalars(split, row), step=module.place["global_step"])
        shown = {role: rows[0][role]["exact_match"] for role in ("fwm", "idm")}  # type: ignore[index]
        said = f"exact match FWM {shown['fwm']:.3f}, IDM {shown['idm']:.3f}"
        rank_zero_info(f"{label} ({split}, greedy): {said}")
        if isinstance(display, RunProgress):
            display.held_out[split] = f"{split} {said}"

    def _splits(self, module: SwirlModule) -> Sequence[str]:
        return tuple(name for name in ("val", "test") if getattr(module.splits, name)) if self.splits is None else self.splits


class QuickEvaluation(BenchmarkEvaluation):
    """What a run has where its callbacks are not named: at most 256 transitions of each held-out split that there is.

    A class without options: a list of callbacks in YAML is laid over the one that stands by default, place by place, and an
    option of a default's would stay in a user's own ``BenchmarkEvaluation``.
    """

    def __init__(self) -> None:
        super().__init__(splits=None, limit=256)


def _scalars(split: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Measures named for TensorBoard: ``val/fwm_exact_match_greedy``."""
    return {
        f"{split}/{name}_{measure}_{row['decoding']}": value
        for name, measures in row.items()
        if isinstance(measures, Mapping)
        for measure, value in measures.items()
    }
