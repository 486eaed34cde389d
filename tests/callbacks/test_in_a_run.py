"""What the callbacks leave behind in a short real run."""

import json
import math
import warnings

import pytest
import torch
from swirl_lightning.callbacks import LatentActionHealth, PhaseFreezing

from swirl_lightning.cli import main
from swirl_lightning.types import Role

NAME = "swirl_lightning.callbacks."


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_evaluation_after_warmup_and_every_phase(config, tmp_path):
    evaluation = {
        "class_path": NAME + "BenchmarkEvaluation",
        "init_args": {"limit": 4, "splits": ["val", "test"], "best_of": [2]},
    }
    assert main(config(trainer__callbacks=[evaluation])) == 0
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert [(r["label"], r["split"], r["decoding"]) for r in rows] == [
        (label, split, decoding)
        for label in ("warmup", "swirl-1-fwm", "swirl-1-idm")
        for split in ("val", "test")
        for decoding in ("greedy", "sampled")
    ]
    assert [r["global_step"] for r in rows[::4]] == [3, 6, 9]
    assert [r["iteration"] for r in rows[::4]] == [0, 1, 1]
    wanted = {"exact_match", "token_accuracy", "bleu", "rouge_l", "logprob", "logprob_per_token"}
    assert all(wanted <= r[role].keys() for r in rows for role in ("fwm", "idm"))
    assert all(math.isfinite(value) for r in rows for role in ("fwm", "idm", "copy") for value in r[role].values())
    assert [r["label"] for r in rows if "best_of_2" in r] == ["warmup"] * 2  # sampled, of both splits
    # the FWM does not move in Phase II, the IDM not in Phase I
    greedy = {r["label"]: r for r in rows if r["split"] == "val" and r["decoding"] == "greedy"}
    assert greedy["swirl-1-idm"]["fwm"] == greedy["swirl-1-fwm"]["fwm"]
    assert greedy["swirl-1-fwm"]["idm"] == greedy["warmup"]["idm"]
    assert greedy["swirl-1-fwm"]["fwm"]["logprob"] != greedy["warmup"]["fwm"]["logprob"]


@pytest.mark.parametrize("whole", [True, False])
def test_without_warmup_the_start_is_evaluated_and_watched(whole, config, tmp_path):
    callbacks = [
        {"class_path": NAME + "BenchmarkEvaluation", "init_args": {"limit": 2, "start": whole, "sampled": whole}},
        {"class_path": NAME + "LatentActionHealth", "init_args": {"limit": 4}},
    ]
    changes = {"model__schedule": {"warmup_epochs": 0, "iterations": 1, "order": ["fwm"]}}
    assert main(config(trainer__callbacks=callbacks, **changes)) == 0
    assert [r["label"] for r in lines(tmp_path / "run" / "health.jsonl")] == ["start", "swirl-1-fwm"]
    evaluated = [(r["label"], r["decoding"]) for r in lines(tmp_path / "run" / "metrics.jsonl")]
    every = [(label, decoding) for label in ("start", "swirl-1-fwm") for decoding in ("greedy", "sampled")]
    assert evaluated == (every if whole else [("swirl-1-fwm", "greedy")])


def test_an_empty_split_is_refused_before_training(config, tmp_path, capsys):
    evaluation = {"class_path": NAME + "BenchmarkEvaluation"}
    split = {"data__init_args__val_fraction": 0.0, "data__init_args__columns": {"split": None}}
    assert main(config(trainer__callbacks=[evaluation], **split)) != 0
    assert "BenchmarkEvaluation.splits has 'val'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_without_a_logger_the_files_are_written_all_the_same(config, tmp_path):
    assert main(config(trainer__logger=False)) == 0
    for file in ("metrics.jsonl", "health.jsonl", "samples.jsonl"):
        assert lines(tmp_path / "run" / file)
    for role in Role:
        assert (tmp_path / "run" / "export" / "last" / role.value / "config.json").is_file()


def test_samples_once_a_phase_and_none_twice_after_a_resume(config, tmp_path):
    sampler = {"class_path": NAME + "RolloutSampler", "init_args": {"every_n_batches": 2, "groups": 1, "members": 2}}
    half = config(trainer__callbacks=[sampler], trainer__max_epochs=3, model__schedule={"warmup_epochs": 1, "iterations": 2})
    assert main(half) == 0
    path = tmp_path / "run" / "samples.jsonl"
    first = lines(path)
    assert [(r["phase"], r["batch"], r["global_step"]) for r in first] == [
        ("fwm", 0, 4),
        ("fwm", 2, 6),
        ("idm", 0, 7),
        ("idm", 2, 9),
    ]
    for row in first:
        rewards = [member["reward"] for member in row["members"]]
        assert len(rewards) == 2
        assert rewards == sorted(rewards, reverse=True)
        assert (row["inferred_action"] is not None) == (row["phase"] == "fwm")
    later = {**first[0], "global_step": 99}  # written after the checkpoint, before a kill that also cut a line short
    with path.open("a") as file:
        file.write(json.dumps(later) + "\n" + '{"epoch": 1, "ba')
    whole = config(trainer__callbacks=[sampler], model__schedule={"warmup_epochs": 1, "iterations": 2})
    assert main([*whole, "--ckpt_path", "last"]) == 0
    rows = lines(path)
    assert rows[: len(first)] == first
    assert [r["global_step"] for r in rows] == [4, 6, 7, 9, 10, 12, 13, 15]


def test_samples_and_health_of_phases_in_closed_form(config, tmp_path):
    closed = {
        "model__fwm__objective": "elbo",
        "model__idm__objective": "posterior",
        "model__idm__posterior": {"draws": 0, "proposals": ["SeenActions"], "gate": {"agreement": True}},
    }
    assert main(config(**closed)) == 0
    for row in lines(tmp_path / "run" / "samples.jsonl"):
        weights = [member["weight"] for member in row["members"]]
        assert weights == sorted(weights, reverse=True)
        assert len({member["sample"] for member in row["members"]}) == len(weights) > 1
        assert row["inferred_action"] == row["members"][0]["sample"]
        assert row["trusted"] in (True, False)
    for row in lines(tmp_path / "run" / "health.jsonl"):
        assert 0 <= row["agreement"] <= 1
        assert 1 <= row["effective_candidates"] <= 17
        assert row["posterior_entropy"] >= 0


def test_a_frozen_role_that_moves_stops_the_run(config, monkeypatch):
    from swirl_lightning.algorithm.module import SwirlModule

    step = SwirlModule.training_step

    def meddle(self, batch, batch_idx):
        step(self, batch, batch_idx)
        with torch.no_grad():
            self.world_model.role_parameters(Role.IDM)[0].view(-1)[0] += 1e-3

    monkeypatch.setattr(SwirlModule, "training_step", meddle)
    changes = {"model__schedule": {"warmup_epochs": 0, "iterations": 1}, "trainer__callbacks": []}
    with pytest.raises(RuntimeError, match="phase fwm changed parameters of the frozen role"):
        main(config(**changes))
    assert main(config(**changes, freezing={"verify": False})) == 0


def test_only_the_phases_role_gets_gradients_and_all_at_the_end(config, monkeypatch):
    from swirl_lightning.algorithm.module import SwirlModule

    seen, modules = {}, set()
    step = SwirlModule.training_step

    def look(self, batch, batch_idx):
        seen[self.phase.value] = {
            role.value: {p.requires_grad for p in self.world_model.role_parameters(role)} for role in Role
        }
        modules.add(self)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SwirlModule, "training_step", look)
    assert main(config(trainer__callbacks=[], model__warmup="each")) == 0
    assert seen == {
        "warmup": {"fwm": {True}, "idm": {True}},
        "fwm": {"fwm": {True}, "idm": {False}},
        "idm": {"fwm": {False}, "idm": {True}},
    }
    (module,) = modules
    assert all(p.requires_grad for role in Role for p in module.world_model.role_parameters(role))


def test_freezing_needs_a_swirl_module():
    import lightning as L

    with pytest.raises(TypeError, match="needs a SwirlModule, got LightningModule"):
        PhaseFreezing().on_train_start(None, L.LightningModule())


def test_perplexity_of_empty_actions_warns_and_goes_on(config, world, tmp_path, monkeypatch):
    from swirl_lightning.world_model.inference import Inference

    assert main(config(trainer__callbacks=[{"class_path": NAME + "ExportModels"}])) == 0
    judge = str(tmp_path / "run" / "export" / "warmup" / "fwm")
    health = {"class_path": NAME + "LatentActionHealth", "init_args": {"limit": 4, "language_model": judge}}
    assert main(config(trainer__callbacks=[health], run_dir=str(tmp_path / "words"))) == 0
    assert all(row["perplexity_ratio"] > 0 for row in lines(tmp_path / "words" / "health.jsonl"))
    infer = Inference.infer_actions
    monkeypatch.setattr(Inference, "infer_actions", lambda *a, **k: [[""] * len(z) for z in infer(*a, **k)])
    with pytest.warns(UserWarning, match="every inferred action is empty"):
        assert main(config(trainer__callbacks=[health], run_dir=str(tmp_path / "empty"))) == 0
    assert all("perplexity_ratio" not in row for row in lines(tmp_path / "empty" / "health.jsonl"))


BASE = {"unique_ratio": 1.0, "code_gap": -2.0, "accuracy": 0.5}


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"unique_ratio": 0.2}, "latent actions collapse"),
        ({"code_gap": 0.0}, "private code"),
        ({"code_gap": 0.0, "accuracy": 0.6}, None),  # better actions explain more, too
        ({"code_gap": -1.5}, None),
    ],
)
def test_health_warns_of_collapse_and_of_a_private_code(change, warning):
    health = LatentActionHealth()
    health.load_state_dict({"first": BASE})  # the baseline comes back with the checkpoint
    assert health.state_dict() == {"first": BASE}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        health._warn({**BASE, **change})
    assert [str(w.message)[: len(warning)] for w in caught] == [warning] if warning else not caught


def test_the_bounds_of_health_are_the_users():
    worse = {"unique_ratio": 0.6, "code_gap": -1.5, "accuracy": 0.5}
    for options, words in (
        ({}, []),
        ({"min_unique_ratio": 0.7}, ["latent actions collapse"]),
        ({"max_gap_growth": 0.4}, ["private code"]),
    ):
        health = LatentActionHealth(**options)
        health.load_state_dict({"first": BASE})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            health._warn(worse)
        assert [str(w.message).split(":")[0].split(", ")[0] for w in caught] == words
