"""Two ranks with unequal shares give what one process gives."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from swirl_lightning.metrics import fwm_metrics
from swirl_lightning.types import TokenScores
from tests.ports import free_port

OURS = ["a b", "a c", "d"]
TRUE = ["a c", "a c", "d e"]
STATES = ["a b", "a b", "d"]


def collection(part):
    torch.set_num_threads(1)
    metrics = fwm_metrics()
    for p, r, x in list(zip(OURS, TRUE, STATES, strict=True))[part]:
        n = len(p)
        scores = TokenScores(torch.full((1, n), -float(n)), torch.ones(1, n, dtype=torch.bool), torch.zeros(1, n))
        metrics.update(predictions=[p], references=[r], states=[x], scores=scores)
    return {name: float(value) for name, value in metrics.compute().items()}


def worker(rank, port, queue):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    queue.put((rank, collection(slice(rank, None, 2))))
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_equal_one_process():
    port = free_port()
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(worker, args=(port, queue), nprocs=2)
    results = dict(queue.get() for _ in range(2))
    alone = collection(slice(None))
    assert results[0] == pytest.approx(alone)
    assert results[1] == pytest.approx(alone)
