"""Two gloo ranks on this machine that run ``swirl`` together, forked from a server that has imported everything already."""

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch.distributed.tensor import DTensor

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.cli import main
from swirl_lightning.types import Role
from tests.ports import free_port

_LEFT_OUT = ("time/", "bar/", "/mismatch")  # clocks, copies, and rounding noise between decoding and scoring


class PowerCutError(ValueError):
    """The end of a process."""


class Probe(Callback):
    """Writes what every rank sees: values of every step, and the weights of both roles after every phase."""

    def __init__(self):
        self.steps, self.weights = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if not any(part in k for part in _LEFT_OUT)}
        phase = pl_module.phase.value
        size = len(batch.unlabelled or batch.labelled)
        self.steps.append(
            {"step": trainer.global_step, "items": size, **{k: v for k, v in values.items() if k.startswith(phase + "/")}}
        )

    def on_train_epoch_end(self, trainer, pl_module):
        self.weights.append([[whole(p).clone() for p in pl_module.world_model.role_parameters(role)] for role in Role])
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"steps": self.steps, "weights": self.weights}, folder / f"probe-{trainer.global_rank}.pt")


def whole(parameter):
    """A parameter with all its rows."""
    parameter = parameter.detach()
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def seen(folder, rank=0):
    """What the probe of a rank wrote."""
    return torch.load(folder / f"probe-{rank}.pt", weights_only=True)


def metrics(folder):
    """Benchmark numbers by (label, split, decoding), without clocks."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        (r["label"], r["split"], r["decoding"]): {
            f"{name}/{measure}": value
            for name, values in r.items()
            if isinstance(values, dict)
            for measure, value in values.items()
        }
        for r in rows
    }


def settings(world, run_dir, *, strategy="auto", devices=1, storage="separate", **changes):
    """Writes a configuration; gives the arguments of ``swirl fit``."""
    callbacks = "swirl_lightning.callbacks."
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
    made = {
        "seed_everything": 0,
        "run_dir": str(run_dir),
        "trainer": {
            "accelerator": "cpu",
            "strategy": strategy,
            "devices": devices,
            "log_every_n_steps": 1,
            "limit_val_batches": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "tests.distributed.harness.Probe"},
                {"class_path": callbacks + "LatentActionHealth", "init_args": {"limit": 4}},
                {"class_path": callbacks + "BenchmarkEvaluation", "init_args": {"limit": 5, "best_of": [2], "batch_size": 2}},
                {"class_path": callbacks + "ExportModels"},
            ],
        },
        "checkpoint": {"every_n_batches": 1},
        "model": {
            "world_model": {"base": str(world / "model"), "storage": storage, "lora": {"r": 4, "alpha": 8}},
            "max_prompt_tokens": 120,
            "token_budget": 500,
            "schedule": {"warmup_epochs": 1, "iterations": 1},
            # neither standardised advantages nor Adam: both magnify the rounding of nearly equal rewards and tiny gradients
            "fwm": {"group_size": 3, "advantage": "none", "sampling": {"max_new_tokens": 40}},
            "idm": {"group_size": 3, "advantage": "none", "sampling": {"max_new_tokens": 16}},
            **{f"{phase}_optimizer": sgd for phase in ("warmup", "fwm", "idm")},
        },
        "data": {
            "class_path": "swirl_lightning.data.TransitionDataModule",
            "init_args": {
                "path": str(world / "data"),
                "max_labelled": 9,  # batches of 4, 4 and 1: one of two ranks has an empty last batch
                "max_unlabelled": 9,
                "warmup_batch_size": 4,
                "batch_size": 4,
            },
        },
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        place = made
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / "settings.yaml"
    file.write_text(yaml.safe_dump(made))
    return ["fit", "--config", str(file)]


def run_alone(arguments, cut_before=None):
    """Runs ``swirl`` in this process; returns its exit status. ``cut_before``: a global step that is not taken any more."""
    step = SwirlModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == cut_before:
            raise PowerCutError("power cut")
        return step(self, batch, batch_idx)

    SwirlModule.training_step = training_step
    try:
        return main(arguments)
    finally:
        SwirlModule.training_step = step


def _become_rank(rank, port, folder):
    elastic = {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    place = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    os.environ.update(elastic | place | {"OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = (folder / f"rank-{rank}.log").open("a", buffering=1)
    os.dup2(sys.stderr.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)


def _rank(rank, port, folder, jobs):
    _become_rank(rank, port, folder)
    status = []
    for arguments, cut_before in jobs:
        try:
            status.append(run_alone(arguments, cut_before))
        except BaseException:
            traceback.print_exc()
            status.append(-1)
            break
    (folder / f"status-{rank}.json").write_text(json.dumps(status))


def processes(folder, target, *arguments):
    """Two processes that run ``target(rank, port, folder, *arguments)``, started."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.distributed.harness"])
    port = free_port()
    ranks = [context.Process(target=target, args=(rank, port, folder, *arguments)) for rank in range(2)]
    for process in ranks:
        process.start()
    return ranks


def end(ranks, seconds):
    """Waits for processes; kills those that are not done in time, and says how many those were."""
    last = time.monotonic() + seconds
    for process in ranks:
        process.join(max(0.1, last - time.monotonic()))
    hung = [process for process in ranks if process.is_alive()]
    for process in hung:
        process.kill()
        process.join()
    return len(hung)


def run_together(folder, jobs, seconds=1200):
    """Runs jobs (arguments, step before which to stop) one after the other on two ranks; gives the statuses of rank 0."""
    hung = end(processes(folder, _rank, jobs), seconds)
    logs = "\n".join(f"--- rank {rank}\n{(folder / f'rank-{rank}.log').read_text()[-3000:]}" for rank in range(2))
    assert not hung, f"ranks hang\n{logs}"
    statuses = [json.loads((folder / f"status-{rank}.json").read_text()) for rank in range(2)]
    assert statuses[0] == statuses[1], logs
    return statuses[0], logs


def _rank_with_fault(rank, port, folder, arguments, fault):
    _become_rank(rank, port, folder)
    step = SwirlModule.training_step

    def training_step(self, batch, batch_idx):
        if (rank, self.global_step) == (fault.rank, fault.step):
            (folder / "fault").touch()
            fault.happen(self)
        return step(self, batch, batch_idx)

    SwirlModule.training_step = training_step
    sys.exit(main(arguments))


@dataclass
class Fault:
    """Something that goes wrong on one rank only, before its step."""

    rank: int
    step: int
    happen: Callable


def run_into(fault, folder, arguments, seconds):
    """Runs ``swirl`` on two ranks, one of which meets a fault.

    Returns:
        Exit codes, seconds from the fault to the end of the last rank, and what each rank printed.
    """
    ranks = processes(folder, _rank_with_fault, arguments, fault)
    hung = end(ranks, seconds)
    ended = time.time()
    logs = [(folder / f"rank-{rank}.log").read_text() for rank in range(2)]
    assert not hung, "\n--- the other rank\n".join(logs)
    return [process.exitcode for process in ranks], ended - (folder / "fault").stat().st_mtime, logs
