"""Runs that draw the next batch while this one trains: the same but for a step of staleness, which the ratio corrects."""

import json

import pytest
import torch

from swirl_lightning.cli import main
from tests.distributed.harness import run_alone, run_together, seen, settings

OWN, ENGINE = "swirl_lightning.rollout.TransformersEngine", "swirl_lightning.rollout.ProcessEngine"


def sgd(lr):
    return {f"model__{role}_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": lr}} for role in ("fwm", "idm")}


def equal(mine, theirs):
    for one, other in zip(mine["steps"], theirs["steps"], strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"items"}:  # of its rank
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("storage", ["separate", "shared", "adapters"])
def test_a_policy_that_stands_still_sees_what_it_would_have_drawn_itself(world, tmp_path, storage):
    for name, engine in (("alone", OWN), ("ahead", ENGINE)):
        assert main(settings(world, tmp_path / name, storage=storage, model__engine=engine, **sgd(0.0))) == 0
    equal(seen(tmp_path / "alone"), seen(tmp_path / "ahead"))


def test_later_batches_are_a_step_old_and_weighted_by_their_ratio(world, tmp_path):
    runs = {}
    for name, engine in (("alone", OWN), ("ahead", ENGINE)):
        assert main(settings(world, tmp_path / name, model__engine=engine, **sgd(300.0))) == 0
        runs[name] = [s for s in seen(tmp_path / name)["steps"] if "fwm/ratio" in s or "idm/ratio" in s]
    for role in ("fwm", "idm"):
        alone, ahead = ([s[f"{role}/ratio"] for s in runs[name] if f"{role}/ratio" in s] for name in ("alone", "ahead"))
        assert alone == pytest.approx([1.0] * 3, abs=1e-6)
        assert ahead[0] == pytest.approx(1.0, abs=1e-6)  # the first batch of an epoch is drawn by the model itself
        assert all(abs(ratio - 1) > 1e-4 for ratio in ahead[1:])
    first = [next(s for s in runs[name] if "fwm/ratio" in s) for name in ("alone", "ahead")]
    assert first[0] == pytest.approx(first[1], rel=1e-4)


def test_two_ranks_see_what_one_sees(world, tmp_path):
    assert main(settings(world, tmp_path / "one", model__engine=ENGINE)) == 0
    arguments = settings(world, tmp_path / "two", strategy="ddp", devices=2, model__engine=ENGINE)
    status, logs = run_together(tmp_path / "ranks", [(arguments, None)])
    assert status == [0], logs
    one, two = seen(tmp_path / "one"), seen(tmp_path / "two")
    equal(one, two)
    for mine, theirs in zip(one["weights"], two["weights"], strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))


def test_a_run_that_was_cut_inside_an_epoch_goes_on(world, tmp_path):
    arguments = settings(world, tmp_path / "run", model__engine=ENGINE)
    assert run_alone(arguments, cut_before=5) != 0
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert seen(tmp_path / "run")["steps"][-1]["step"] == 9


@pytest.mark.parametrize(("objectives", "ahead"), [(("grpo", "grpo"), True), (("elbo", "posterior"), False)])
def test_grpo_draws_ahead_and_a_closed_form_does_not(world, tmp_path, objectives, ahead):
    changes = {f"model__{role}__objective": objective for role, objective in zip(("fwm", "idm"), objectives, strict=True)}
    assert main(settings(world, tmp_path / "run", **changes, model__engine=ENGINE)) == 0
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert any("time/ahead" in step for step in steps) == ahead
