"""``swirl fit`` as a user types it: every storage, every option of the method, what it writes, what it leaves alone."""

import json
import math
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swirl_lightning.cli import main
from swirl_lightning.data.reader import read_transitions

BATCHES = 9  # three of the warm-up, three of each phase


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(run, role, label="last"):
    from safetensors.torch import load_file

    return load_file(run / "export" / label / role / "model.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


VARIANTS = {
    "separate": {},
    "shared": {"model__world_model__storage": "shared"},
    "adapters": {"model__world_model__storage": "adapters", "model__world_model__lora": {"r": 4, "alpha": 8}},
    "each": {"model__warmup": "each"},
    "no reference": {"model__fwm__grpo": {"beta": 0.0}, "model__idm__grpo": {"beta": 0.0}},
    "nll, replay, inner epochs": {
        "model__fwm__nll_weight": 0.5,
        "model__fwm__replay_weight": 0.5,
        "model__idm__replay_weight": 0.5,
        "model__fwm__inner_epochs": 2,
        "data__init_args__replay_batch_size": 2,
    },
    "constrained": {
        "model__idm__sampling__max_new_tokens": 16,
        "model__idm__constraint": {"choices": ["turn left", "turn right", "move forward", "take key", "drop key"]},
    },
    "pseudo-labels": {"model__schedule": {"warmup_epochs": 1, "iterations": 2, "order": ["pseudo"]}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fit_runs_every_phase_and_writes_what_it_says(variant, config, tmp_path):
    assert main(config(**VARIANTS[variant])) == 0
    run = tmp_path / "run"
    metrics = rows(run / "metrics.jsonl")
    assert [row["label"] for row in metrics if row["decoding"] == "greedy"] == (
        ["warmup", "swirl-1-pseudo", "swirl-2-pseudo"]
        if variant == "pseudo-labels"
        else ["warmup", "swirl-1-fwm", "swirl-1-idm"]
    )
    assert [row["global_step"] for row in metrics[::2]] == [3, 6, 9]  # one tick a batch, inner epochs or not
    for row in metrics:
        assert all(math.isfinite(value) for role in ("fwm", "idm") for value in row[role].values())
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"val/fwm_exact_match_greedy", "health/code_gap"} <= scalars
    if variant != "pseudo-labels":
        for tag in ("reward", "advantage_spread", "entropy", "length", "time/rollout", "time/reward", "time/policy"):
            assert {f"fwm/{tag}", f"idm/{tag}"} <= scalars
        assert "fwm/information_bound" in scalars
        assert ("idm/elbo" in scalars) == (variant != "no reference") == ("fwm/kl" in scalars)
        assert any(tag.startswith("samples/fwm") for tag in events.Tags()["tensors"])
        assert {row["phase"] for row in rows(run / "samples.jsonl")} == {"fwm", "idm"}
    if variant == "constrained":
        actions = {
            z for row in rows(run / "samples.jsonl") if row["phase"] == "idm" for z in (m["sample"] for m in row["members"])
        }
        assert actions <= {"turn left", "turn right", "move forward", "take key", "drop key"}


def test_only_the_phases_role_moves(config, tmp_path):
    from swirl_lightning.callbacks import ExportModels

    callbacks = [{"class_path": "swirl_lightning.callbacks.ExportModels", "init_args": {"phases": True}}]
    assert ExportModels(phases=True).phases
    assert main(config(trainer__callbacks=callbacks)) == 0
    run = tmp_path / "run"
    assert same(weights(run, "fwm", "warmup"), weights(run, "idm", "warmup"))  # one joint model in both roles
    assert not same(weights(run, "fwm", "swirl-1-fwm"), weights(run, "fwm", "warmup"))
    assert same(weights(run, "idm", "swirl-1-fwm"), weights(run, "idm", "warmup"))
    assert same(weights(run, "fwm", "swirl-1-idm"), weights(run, "fwm", "swirl-1-fwm"))
    assert not same(weights(run, "idm", "swirl-1-idm"), weights(run, "idm", "warmup"))


def test_the_same_seed_gives_the_same_run(config, tmp_path):
    runs = [tmp_path / name for name in "abc"]
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        assert main(config(run_dir=str(run), seed_everything=seed)) == 0
    assert same(weights(runs[0], "fwm"), weights(runs[1], "fwm"))
    assert same(weights(runs[0], "idm"), weights(runs[1], "idm"))
    assert not same(weights(runs[0], "fwm"), weights(runs[2], "fwm"))


def test_answers_that_do_not_fit_are_refused_before_training(config, capsys):
    assert main(config(model__idm__sampling__max_new_tokens=2)) != 0
    assert "idm.sampling.max_new_tokens=2 cuts off" in capsys.readouterr().err


def test_the_warmup_ends_when_the_idm_is_good(config, tmp_path):
    changes = {"model__schedule": {"warmup_epochs": 5, "iterations": 1}, "model__warmup_until": {"idm": 0.0}}
    assert main(config(**changes)) == 0
    labels = [(row["label"], row["epoch"]) for row in rows(tmp_path / "run" / "metrics.jsonl")[::2]]
    assert labels == [("warmup", 0), ("swirl-1-fwm", 1), ("swirl-1-idm", 2)]


@pytest.mark.parametrize("storage", ["separate", "adapters"])
def test_exports_load_without_our_code(storage, config, tmp_path):
    assert main(config(model__world_model__storage=storage)) == 0
    script = (
        "import sys; sys.modules['swirl_lightning'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"for role in ('fwm', 'idm'):\n    folder = {str(tmp_path / 'run' / 'export' / 'last')!r} + '/' + role\n"
        "    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        "    print(model(**tokenizer('agent 1 2 west', return_tensors='pt')).logits.shape[-1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2


def test_commands_on_a_finished_run(config, world, tmp_path, capsys):
    assert main(config()) == 0
    run = tmp_path / "run"
    export = tmp_path / "export"
    assert main(["export", str(run), str(export)]) == 0
    assert same(weights(run, "fwm"), __import__("safetensors.torch").torch.load_file(export / "fwm" / "model.safetensors"))
    states = tmp_path / "states.jsonl"
    pair = {"state": "agent 1 2 west ; key 2 2", "next_state": "agent 1 2 north ; key 2 2", "episode": "e"}
    states.write_text("\n".join(json.dumps({**pair, "step": i}) for i in range(3)))
    assert main(["label", str(states), str(export / "idm"), str(tmp_path / "labelled.jsonl")]) == 0
    labelled = rows(tmp_path / "labelled.jsonl")
    assert len(labelled) == 3
    assert all(row["action_logprob"] < 0 for row in labelled)
    capsys.readouterr()
    out = tmp_path / "imagined.json"
    options = ["--state", pair["state"], "--actions", "[turn left, move forward]", "--out", str(out)]
    assert main(["imagine", "--fwm", str(export / "fwm"), *options]) == 0
    assert [step["action"] for step in json.loads(out.read_text())] == [None, "turn left", "move forward"]
    predictions = tmp_path / "predictions.jsonl"
    assert main(["forecast", str(world / "data"), str(export / "fwm"), str(predictions), "--limit", "5"]) == 0
    lines = rows(predictions)
    held_out = {t.next_state for t in read_transitions(world / "data")}
    assert len(lines) == 5
    assert {line["split"] for line in lines} == {"test"}
    assert {line["reference"] for line in lines} <= held_out
    assert main(["score", "text", str(predictions)]) == 0
    assert "| test |" in capsys.readouterr().out
    assert main(["compare", f"[{run}]", "--split", "val"]) == 0
    assert "FWM exact" in capsys.readouterr().out
