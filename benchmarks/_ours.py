"""Our side of ``swirl_step.py``: ``SwirlModule`` under ``Trainer.fit``, one step whenever the parent asks for one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import _shapes
import lightning as L
import torch
from _model import matmul_rate
from torch.utils.data import DataLoader

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.objectives.grpo import GrpoConfig
from swirl_lightning.algorithm.rewards import JudgeLogprob, RewardPart
from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.codecs.constraints import RangeConstraint
from swirl_lightning.rollout import RolloutEngine, TransformersEngine
from swirl_lightning.types import Batch, Phase, Role, SamplingParams, ScoredRow, UnlabelledPair
from swirl_lightning.world_model import WorldModelConfig
from swirl_lightning.world_model.prompts import PromptTemplates


class Clock:
    """Seconds spent inside model calls: forward passes, backward passes and optimizer steps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time inside, once where calls nest."""
        self._depth += 1
        started = time.perf_counter()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - started

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.running():
                return call(*args, **kwargs)

        return counted


class Paced(L.Callback):
    """Waits before each step until it is asked for, and reports it afterwards; first the numbers of the probes.

    Args:
        size: of the models.
        wait: blocks until the next step is asked for.
        tell: takes the report.
        clocked: count the time inside model calls; models are changed for it, and cannot be sent to another process.
    """

    def __init__(
        self,
        size: _shapes.Size,
        wait: Callable[[], None] = _shapes.wait_for_go,
        tell: Callable[[dict[str, Any]], None] = _shapes.reply,
        clocked: bool = True,
    ) -> None:
        self.clock, self.size, self.wait, self.tell, self.clocked = Clock(), size, wait, tell, clocked
        self.rate = matmul_rate(10, size)

    def on_fit_start(self, trainer: L.Trainer, pl_module: SwirlModule) -> None:
        """Full-length completions on both sides: the policy may not end early. Model calls are counted."""
        self.wait()
        self.tell(numbers(pl_module, self.size))
        role = Role(pl_module.phase.value)
        words = RangeConstraint(self.size.vocab, _shapes.FIRST_WORD, self.size.vocab)
        pl_module.inference.constraints = {**pl_module.inference.constraints, role: words}
        if not self.clocked:
            return
        for model in pl_module.world_model.models.values():
            model.forward = self.clock.around(model.forward)
        pl_module.steps = replace(pl_module.steps, backward=self.clock.around(pl_module.steps.backward))
        for optimizer in trainer.optimizers:
            optimizer.step = self.clock.around(optimizer.step)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: SwirlModule, batch: Batch, batch_idx: int) -> None:
        """Blocks until asked."""
        self.wait()
        self.clock.seconds, self.started, self.cpu_started = 0.0, time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: SwirlModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Reports seconds, parts and the peak."""
        seconds = time.perf_counter() - self.started
        experience = pl_module.last_experience
        assert experience is not None
        self.tell(
            {
                "seconds": seconds,
                "cpu_seconds": time.process_time() - self.cpu_started,
                "parts": experience.seconds | {"outside model calls": seconds - self.clock.seconds},
                "peak_bytes": _shapes.memory(),
                "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
                "tokens": int(experience.rollouts.trajectory.mask.sum()),
                "flops_per_second": self.rate,
                "reward": float(experience.judgement.rewards.mean()),
            }
        )


def numbers(module: SwirlModule, size: _shapes.Size) -> dict[str, Any]:
    """Log-probabilities and rewards of the probes, as a step computes them."""
    inference, prompts, role = module.inference, module.inference.prompts, Role(module.phase.value)
    rows, judged = [], []
    for probe in _shapes.probes(role.value, size.vocab):
        pair, action = UnlabelledPair(probe.pair.state, probe.pair.next_state), probe.pair.action
        if role is Role.IDM:
            prompt = prompts.idm_prompt(pair).ids
            judged.append([prompts.fwm_row(pair, text, pair.next_state) for text in probe.completions])
        else:
            prompt = prompts.fwm_prompt(pair, action).ids
            judged.append([prompts.idm_row(pair, text, action) for text in probe.completions])
        rows.append([ScoredRow((*prompt, *inference.codec.encode_state(text)), len(prompt)) for text in probe.completions])
    with inference.world_model.use(role) as model:
        logprobs = inference.scorer.score(model, rows, temperature=_shapes.TEMPERATURE).logprobs
    judgement = inference.score_rows(role.opposite, judged)
    rewards = (judgement.logprobs.sum(-1) / judgement.mask.sum(-1)).clamp(min=_shapes.CLAMP)
    exact = module.world_model.compute_dtype == torch.float32
    return {"logprobs": logprobs.tolist(), "rewards": rewards.tolist(), "exact": exact}


class Batches(L.LightningDataModule):
    """The benchmark's pairs, a step's worth a batch; a batch names the next one's, where they are drawn for ``ahead``."""

    def __init__(self, shape: _shapes.Shape, steps: int, vocab: int, ahead: bool = False) -> None:
        super().__init__()
        texts = _shapes.pairs(shape, shape.pairs * steps, vocab=vocab)
        made = [UnlabelledPair(p.state, p.next_state, step=i) for i, p in enumerate(texts)]
        parts = [tuple(made[i : i + shape.pairs]) for i in range(0, len(made), shape.pairs)]
        following = [*parts[1:], ()] if ahead else [()] * len(parts)
        self.batches = [Batch(unlabelled=own, upcoming=next_) for own, next_ in zip(parts, following, strict=True)]

    def train_dataloader(self) -> DataLoader[Batch]:
        """One batch a step."""
        return DataLoader(self.batches, batch_size=1, collate_fn=lambda rows: rows[0])  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Texts stay where they are."""
        return batch


def module(
    shape: _shapes.Shape,
    size: _shapes.Size,
    models: Path,
    token_budget: int,
    compile: bool,
    engine: RolloutEngine = TransformersEngine(),  # noqa: B008  # holds settings only
) -> SwirlModule:
    """The module as a user would configure it."""
    dtype: Any = "auto" if size.dtype == "float32" else size.dtype

    def settings(tokens: int) -> RoleSettings:
        sampling = SamplingParams(max_new_tokens=tokens, temperature=_shapes.TEMPERATURE)
        rewards = [RewardPart(JudgeLogprob(floor=_shapes.CLAMP))]
        grpo = GrpoConfig(beta=_shapes.BETA)  # no completion ends by itself here, and all count as they do in the peer
        return RoleSettings(sampling, group_size=shape.group, grpo=grpo, rewards=rewards, truncated="reward")

    return SwirlModule(
        WorldModelConfig(base=str(models / "fwm"), idm_base=str(models / "idm"), dtype=dtype, compile=compile),
        tokenizer=str(models / "tokenizer"),
        prompts=PromptTemplates(fwm=("{state} {action}",), idm=("{state} {next_state}",)),
        max_prompt_tokens=shape.state + max(shape.next_state, shape.action),
        schedule=PhaseSchedule(warmup_epochs=0, iterations=1, order=(Phase(shape.phase),)),
        fwm=settings(shape.next_state),
        idm=settings(shape.action),
        fwm_optimizer=_adamw,
        idm_optimizer=_adamw,
        engine=engine,
        token_budget=token_budget,
        seed=0,
    )


def _adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=_shapes.LEARNING_RATE, weight_decay=0.0, fused=True)  # the default of the peer


def fit(
    shape: _shapes.Shape,
    size: _shapes.Size,
    models: Path,
    steps: int,
    paced: Paced,
    token_budget: int,
    compile: bool = False,
    engine: RolloutEngine = TransformersEngine(),  # noqa: B008  # holds settings only
) -> None:
    """Makes ``steps`` steps at the pace that is asked for."""
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=1,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[paced],
    )
    batches = Batches(shape, steps, size.vocab, engine.looks_ahead)
    trainer.fit(module(shape, size, models, token_budget, compile, engine), batches)


def main() -> None:
    """Runs as many steps as the parent asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=_shapes.SHAPES, required=True)
    parser.add_argument("--size", choices=_shapes.SIZES, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--token-budget", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = replace(_shapes.SHAPES[args.shape], pairs=args.groups)
    size = _shapes.SIZES[args.size]
    fit(shape, size, args.models, args.steps, Paced(size), args.token_budget, args.compile)


if __name__ == "__main__":
    main()
