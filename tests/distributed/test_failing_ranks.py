"""A rank that fails or dies ends the job, with its error shown, instead of leaving the other one waiting for it."""

import math
import os
import re
import signal
import sys
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from swirl_lightning.distributed.watch import RankWatch
from tests.distributed.harness import Fault, end, processes, run_into, settings


def loss_is_infinite(module):
    send = module.steps._send
    object.__setattr__(module.steps, "_send", lambda parts, model: send((_infinite(part) for part in parts), model))


def _infinite(part):
    part.loss.data.mul_(math.inf)
    return part


def raise_outside_a_step(module):
    def on_train_batch_end(*_):
        raise RuntimeError("a callback broke")

    module.trainer.callbacks[0].on_train_batch_end = on_train_batch_end


def be_killed(module):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "happen", "rank", "error"),
    [
        ("fsdp", loss_is_infinite, 1, "FloatingPointError: the loss is inf in phase warmup, epoch 0, step 1"),
        ("ddp", raise_outside_a_step, 0, "RuntimeError: a callback broke"),
        ("ddp", be_killed, 0, None),
        ("fsdp", be_killed, 1, None),
    ],
)
def test_a_rank_that_fails_ends_the_job(strategy, happen, rank, error, world, tmp_path):
    arguments = settings(world, tmp_path / "run", strategy=strategy, devices=2, trainer__callbacks=[])
    codes, seconds, logs = run_into(Fault(rank, 1, happen), tmp_path / "logs", arguments, 600)
    assert codes[1 - rank] == 1
    assert seconds < 35  # a death without a word would be noticed after 40 at the earliest
    if error is None:
        assert codes[rank] == -signal.SIGKILL
        assert "rror" in logs[1 - rank]
    else:
        assert codes[rank] == 1
        assert error in logs[1 - rank]  # both ranks show it


def wait_far_from_any_collective(rank, port, folder, last_words):
    sys.stderr = (folder / f"rank-{rank}.log").open("w", buffering=1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0, timeout=timedelta(seconds=30))
    watch = RankWatch(store, rank, 2, period=0.1, silence=1.5, grace=0.2)
    time.sleep(0.5)
    if rank != last_words.rank:
        time.sleep(60)
    last_words.happen(watch)


def say(watch):
    watch.fail(ValueError("bad luck"))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("happen", "said"), [(be_killed, "rank {rank}.* gone"), (say, "rank {rank} failed: ValueError: bad luck")]
)
def test_a_rank_that_is_not_in_a_collective_operation_ends_too(happen, said, rank, tmp_path):
    ranks = processes(tmp_path, wait_far_from_any_collective, Fault(rank, 0, happen))
    assert end(ranks, 30) == 0
    assert ranks[1 - rank].exitcode == 1
    assert re.match(f"swirl: error: {said.format(rank=rank)}", (tmp_path / f"rank-{1 - rank}.log").read_text())


def leave_one_after_the_other(rank, port, folder, slow):
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0, timeout=timedelta(seconds=30))
    watch = RankWatch(store, rank, 2, period=0.1, silence=1.0, grace=0.2)
    time.sleep(3.0 * (rank == slow))
    watch.leave()


@pytest.mark.parametrize("slow", [0, 1])
def test_a_rank_that_is_done_is_not_missed(slow, tmp_path):
    ranks = processes(tmp_path, leave_one_after_the_other, slow)
    assert end(ranks, 30) == 0
    assert [process.exitcode for process in ranks] == [0, 0]
