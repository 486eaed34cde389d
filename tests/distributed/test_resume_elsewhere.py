"""A run goes on under another strategy and on another number of devices, as if nothing had happened."""

import pytest

from tests.distributed.harness import run_alone, run_together, seen, settings

CHAINS = {  # (strategy, ranks) of each part of the run; parts end before steps 2 (warm-up) and 5 (inside Phase I)
    "one, two, one": ("separate", [("auto", 1), ("ddp", 2), ("auto", 1)]),
    "ddp, fsdp, ddp": ("separate", [("ddp", 2), ("fsdp", 2), ("ddp", 2)]),
    "fsdp, one, fsdp": ("adapters", [("fsdp", 2), ("auto", 1), ("fsdp", 2)]),
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
    for (strategy, ranks), cut_before in zip(parts, (2, 5, None), strict=True):
        place = {"strategy": strategy, "devices": ranks, "storage": storage}
        arguments = [*settings(world, tmp_path / "moved", **place, **CHANGES), *resume]
        expected = 0 if cut_before is None else 1
        if ranks == 1:
            assert run_alone(arguments, cut_before) == expected
        else:
            statuses, logs = run_together(tmp_path / f"logs-{strategy}-{cut_before}", [(arguments, cut_before)])
            assert statuses == [expected], logs
        resume = ["--ckpt_path", "last"]
    assert [step["step"] for step in seen(tmp_path / "moved")["steps"]] == [6, 7, 8, 9]  # of the last part
    one, other = (seen(folder)["weights"][-1] for folder in (straight(storage), tmp_path / "moved"))
    for mine, theirs in zip(one, other, strict=True):
        assert max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True)) < 1e-5
