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
    statuses, logs = run_together(folder / "logs", jobs)
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


@pytest.fixture(scope="module")
def options(world, tmp_path_factory):
    """Alone and on two ranks: pairs from a stream, activations computed again, replay for one rank; and mixed precision."""
    folder = tmp_path_factory.mktemp("options")
    stream = {"state_only": str(world / "data"), "stream_batches": 3, "labelled_fraction": 0.5}
    changes = {f"data__init_args__{name}": value for name, value in stream.items()}
    changes["model__world_model__gradient_checkpointing"] = True
    changes |= {"model__fwm__replay_weight": 0.5, "data__init_args__replay_batch_size": 1}
    assert run_alone(settings(world, folder / "alone", **changes)) == 0
    bfloat16 = {
        "class_path": "swirl_lightning.distributed.strategies.ShardedStrategy",
        "init_args": {"compute_dtype": "bfloat16"},
    }
    strategies = {"ddp": "ddp", "fsdp": "fsdp", "bfloat16": bfloat16}
    jobs = [
        (settings(world, folder / name, strategy=strategy, devices=2, **changes), None) for name, strategy in strategies.items()
    ]
    statuses, logs = run_together(folder / "logs", jobs)
    assert statuses == [0] * 3, logs
    cut = settings(world, folder / "cut", **changes)
    assert run_alone(cut, cut_before=5) != 0  # in the middle of Phase I
    assert run_alone([*cut, "--ckpt_path", "last"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("ddp", 1e-5), ("fsdp", 1e-5), ("bfloat16", 0.05)])
def test_streamed_pairs_recomputed_activations_and_mixed_precision(options, name, tolerance):
    alone, ranks = seen(options / "alone"), [seen(options / name, rank) for rank in range(2)]
    assert [step["items"] for step in ranks[0]["steps"]] == [2, 2, 1] + [2] * 6
    assert all(
        torch.equal(p, q) for a, b in zip(*(r["weights"][-1] for r in ranks), strict=True) for p, q in zip(a, b, strict=True)
    )
    assert all(p.dtype == torch.float32 for role in ranks[0]["weights"][-1] for p in role)
    steps = alone["steps"] if name != "bfloat16" else alone["steps"][:1]  # what is sampled later is not the same any more
    for mine, theirs in zip(steps, ranks[0]["steps"], strict=name != "bfloat16"):
        for key in mine.keys() - {"items"}:
            assert theirs[key] == pytest.approx(mine[key], rel=tolerance, abs=tolerance), key


@pytest.mark.slow
def test_a_run_on_a_stream_goes_on_with_the_next_pairs(options):
    alone, cut = (seen(options / name) for name in ("alone", "cut"))
    assert all(
        torch.equal(p, q)
        for a, b in zip(alone["weights"][-1], cut["weights"][-1], strict=True)
        for p, q in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def closed(world, tmp_path_factory):
    """Alone and on two ranks: phases in closed form, dreams, state-only pairs in the warm-up, a guard."""
    folder = tmp_path_factory.mktemp("closed")
    proposals = [{"class_path": "SeenActions"}, {"class_path": "SimilarStates", "init_args": {"neighbours": 2}}]
    actions = {
        "model__state_only_weight": 1.0,
        "model__fwm__objective": "elbo",
        "model__idm__objective": "posterior",
        "model__idm__posterior": {"draws": 2, "proposals": proposals},
        "model__idm__dream_weight": 1.0,
    }
    states = {"model__fwm__objective": "posterior", "model__fwm__rewards": [{"reward": "UnitAccuracy"}]}
    variants = {
        "actions": actions,
        "states": states | {"model__schedule": {"warmup_epochs": 1, "iterations": 1, "order": ["fwm"]}},
    }
    for name, changes in variants.items():
        assert run_alone(settings(world, folder / f"alone-{name}", **changes)) == 0
    jobs = [
        (settings(world, folder / f"{strategy}-{name}", strategy=strategy, devices=2, **variants[name]), None)
        for name, strategy in (("actions", "ddp"), ("actions", "fsdp"), ("states", "fsdp"))
    ]
    statuses, logs = run_together(folder / "logs", jobs)
    assert statuses == [0] * len(jobs), logs
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "name"), [("ddp", "actions"), ("fsdp", "actions"), ("fsdp", "states")])
def test_closed_forms_take_the_steps_of_one_process(closed, strategy, name):
    alone, ranks = seen(closed / f"alone-{name}"), [seen(closed / f"{strategy}-{name}", rank) for rank in range(2)]
    assert all(
        torch.equal(p, q) for a, b in zip(*(r["weights"][-1] for r in ranks), strict=True) for p, q in zip(a, b, strict=True)
    )
    for rank in ranks:
        for mine, theirs in zip(alone["steps"], rank["steps"], strict=True):
            for key in mine.keys() - {"items"}:
                assert theirs[key] == pytest.approx(mine[key], rel=1e-4, abs=1e-4), key
