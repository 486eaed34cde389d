"""Two ranks take the steps of one process with the same global batches, and hold equal weights after every phase.

Rows are unequally long, are split by the token budget, and one rank's share of every last batch is empty.
"""

import pytest
import torch

from tests.distributed.harness import metrics, run_alone, run_together, seen, settings

STRATEGIES = ["ddp", "fsdp"]
STORAGES = ["separate", "shared", "adapters"]


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Every storage alone, and with every strategy on two ranks; the folder of a run by (strategy, storage)."""
    folder = tmp_path_factory.mktemp("ranks")
    for storage in STORAGES:
        assert run_alone(settings(world, folder / f"alone-{storage}", storage=storage)) == 0
    jobs = [
        (settings(world, folder / f"{strategy}-{storage}", strategy=strategy, devices=2, storage=storage), None)
        for strategy in STRATEGIES
        for storage in STORAGES
    ]
    statuses, logs = run_together(folder / "logs", jobs, seconds=300)
    assert statuses == [0] * len(jobs), logs
    return lambda strategy, storage: folder / f"{strategy}-{storage}"


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("strategy", STRATEGIES)
class TestTwoRanks:
    def test_ranks_hold_equal_weights_after_every_phase(self, runs, strategy, storage):
        one, other = (seen(runs(strategy, storage), rank)["weights"] for rank in range(2))
        assert len(one) == len(other) == 3
        for phase, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            for a, b in zip(mine, theirs, strict=True):
                assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True)), phase

    def test_steps_are_those_of_one_process(self, runs, strategy, storage):
        alone = seen(runs("alone", storage))["steps"]
        ranks = [seen(runs(strategy, storage), rank)["steps"] for rank in range(2)]
        assert [step["items"] for step in ranks[1]] == [2, 2, 0] * 3
        for mine, *theirs in zip(alone, *ranks, strict=True):
            for step in theirs:
                assert step.keys() == mine.keys()
                for name in mine.keys() - {"items"}:
                    assert step[name] == pytest.approx(mine[name], rel=1e-5, abs=1e-5), name

    def test_weights_are_those_of_one_process(self, runs, strategy, storage):
        alone, together = (seen(runs(name, storage))["weights"][-1] for name in ("alone", strategy))
        for mine, theirs in zip(alone, together, strict=True):
            assert max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True)) < 1e-4

    def test_benchmark_numbers_are_those_of_one_process(self, runs, strategy, storage):
        alone, together = metrics(runs("alone", storage)), metrics(runs(strategy, storage))
        assert len(alone) == 6
        assert alone.keys() == together.keys()
        for key, values in alone.items():
            assert together[key] == pytest.approx(values, rel=1e-4, abs=1e-4), key
