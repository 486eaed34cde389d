"""Processes that run ``swirl`` and can be killed, forked from a server that has imported everything already."""

import json
import multiprocessing
import os
import signal
import sys
import time

import lightning.pytorch.cli
import swirl_lightning.callbacks
import torch
import transformers
from torch.utils.tensorboard import SummaryWriter

from swirl_lightning.cli import main
from swirl_lightning.distributed.shards import join
from tests.ports import free_port

_IMPORTED = (lightning.pytorch.cli, swirl_lightning.callbacks, transformers.LlamaForCausalLM, SummaryWriter)  # by the server
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.processes"])


def _run(arguments, rank, port, log, prepare, options):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if port is not None:
        os.environ.update(TORCHELASTIC_RUN_ID="test", GROUP_RANK="0", LOCAL_WORLD_SIZE="2", WORLD_SIZE="2")
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if prepare is not None:
        prepare(rank, **options)
    sys.exit(main(arguments))


class Life:
    """A run of ``swirl`` until it ends or is killed.

    Args:
        arguments: of ``swirl``.
        folder: for logs.
        ranks: processes that run together, 1 or 2.
        prepare: called in each process before ``swirl``, with its rank and ``options``.
    """

    def __init__(self, arguments, folder, ranks=1, prepare=None, **options):
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port() if ranks > 1 else None
        self.logs = [folder / f"life-{time.time_ns()}-{rank}.log" for rank in range(ranks)]
        self.processes = [
            _FORKS.Process(target=_run, args=(arguments, rank, port, log, prepare, options))
            for rank, log in enumerate(self.logs)
        ]
        for process in self.processes:
            process.start()

    @property
    def alive(self):
        return any(process.is_alive() for process in self.processes)

    def send(self, number, only_rank=None):
        for rank, process in enumerate(self.processes):
            if process.is_alive() and only_rank in (None, rank):
                os.kill(process.pid, number)

    def end(self, seconds=600):
        """Waits; the exit statuses, that of rank 0 first. What hangs is killed and is an error."""
        until = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        hung = self.alive
        self.send(signal.SIGKILL)
        for process in self.processes:
            process.join()
        assert not hung, f"no end after {seconds} s\n{self.said()}"
        return [process.exitcode for process in self.processes]

    def said(self):
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}" for log in self.logs if log.exists())


def lines(path):
    """Lines of a report without what a clock says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("seconds", "elapsed", "cpu_seconds")} for row in rows]


def same_weights(one, other):
    """Whether two checkpoints, in shards or not, hold bitwise equal weights."""
    states = [join(torch.load(path, weights_only=True), path, whole=True)["state_dict"] for path in (one, other)]
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
