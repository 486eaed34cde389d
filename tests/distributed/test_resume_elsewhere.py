"""A run goes on under another strategy and on another number of devices, as if nothing had happened."""

import pytest

from tests.distributed.harness import run_alone, run_together, seen, settings

SHARDS = {"class_path": "swirl_lightning.distributed.strategies.ShardedStrategy", "init_args": {"sharded_checkpoints": True}}
CHAINS = {  # (strategy, ranks, step before which it ends) of each part of the run; steps 0 to 2 are warm-up, 3 to 5 Phase I
    "one, two, one": ("separate", [("auto", 1, 2), ("ddp", 2, 5), ("auto", 1, None)]),
    "ddp, shards, shards, ddp": ("separate", [("ddp", 2, 2), (SHARDS, 2, 4), (SHARDS, 2, 7), ("ddp", 2, None)]),
    "fsdp, one, fsdp": ("adapters", [("fsdp", 2, 2), ("auto", 1, 5), ("fsdp", 2, None)]),
}
# smooth where Adam would make steps of a full learning rate out of rounding
ADAM = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2, "eps": 1e-2}}
CHANGES = {
    "trainer__callbacks": [{"class_path": "tests.distributed.harness.Probe"}],
    **{f"model__{phase}_optimizer": ADAM for phase in ("warmup", "fwm", "idm")},
}


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    """A function that gives the folder of an undisturbed run of one process."""
    folder, done = tmp_path_factory.mktemp("straight"), set()

    def run(storage):
        if storage not in done:
            assert run_alone(settings(world, folder / storage, storage=storage, **CHANGES)) == 0
            done.add(storage)
        return folder / storage

    return run


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS)
def test_a_run_goes_on_elsewhere(chain, world, straight, tmp_path):
    storage, parts = CHAINS[chain]
    resume = []
    for number, (strategy, ranks, cut_before) in enumerate(parts):
        place = {"strategy": strategy, "devices": ranks, "storage": storage}
        arguments = [*settings(world, tmp_path / "moved", **place, **CHANGES), *resume]
        expected = 0 if cut_before is None else 1
        if ranks == 1:
            assert run_alone(arguments, cut_before) == expected
        else:
            statuses, logs = run_together(tmp_path / f"logs-{number}", [(arguments, cut_before)])
            assert statuses == [expected], logs
        resume = ["--ckpt_path", "last"]
    last = range(parts[-2][2] + 1, 10)
    assert [step["step"] for step in seen(tmp_path / "moved")["steps"]] == list(last)
    assert not list((tmp_path / "moved" / "checkpoints").glob("*.shards-*"))  # the last part has replaced them
    one, other = (seen(folder)["weights"][-1] for folder in (straight(storage), tmp_path / "moved"))
    for mine, theirs in zip(one, other, strict=True):
        assert max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True)) < 1e-5
