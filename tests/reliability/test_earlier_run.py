"""A run folder that held a run before: what is new is never mixed with what is old."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swirl_lightning.cli import main
from swirl_lightning.files import append_row, drop_later, set_earlier_run_apart
from tests.processes import lines

HEALTH = {"class_path": "swirl_lightning.callbacks.LatentActionHealth", "init_args": {"limit": 4}}
METRICS = {"class_path": "swirl_lightning.callbacks.BenchmarkEvaluation", "init_args": {"limit": 2}}
EXPORT = {"class_path": "swirl_lightning.callbacks.ExportModels"}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_that_begins_anew_sets_the_earlier_one_apart(config, tmp_path):
    run, callbacks = tmp_path / "run", [HEALTH, METRICS, EXPORT]
    longer = {"warmup_epochs": 1, "iterations": 2}
    assert main(config(trainer__callbacks=callbacks, model__schedule=longer)) == 0
    before = lines(run / "metrics.jsonl")
    assert main(config(trainer__callbacks=callbacks)) == 0  # fewer phases: nothing writes over the old run's last ones
    assert [row["label"] for row in rows(run / "health.jsonl")] == ["warmup", "swirl-1-fwm", "swirl-1-idm"]
    assert len(rows(run / "metrics.jsonl")) == 6
    events = EventAccumulator(str(run))
    events.Reload()
    assert max(event.step for event in events.Scalars("idm/reward")) == 8
    old = run / "earlier-1"
    assert lines(old / "metrics.jsonl") == before
    assert (old / "export" / "last" / "fwm" / "model.safetensors").is_file()
    assert main(config(trainer__callbacks=callbacks, run_dir=str(old), model__schedule=longer)) == 0
    last = str(old / "earlier-1" / "checkpoints" / "last.ckpt")
    assert main([*config(trainer__callbacks=callbacks, model__schedule=longer), "--ckpt_path", last]) == 0  # it can go on


def test_models_in_use_stay_where_they_are(tmp_path):
    for name in ("export/warmup/fwm", "checkpoints"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / "last.ckpt").write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    model = str(tmp_path / "export" / "warmup" / "fwm")
    assert set_earlier_run_apart(tmp_path, (model, None)) == tmp_path / "earlier-1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier-1", "export", "notes.txt"]
    assert set_earlier_run_apart(tmp_path) is None  # no run, only models
    (tmp_path / "metrics.jsonl").write_text("")
    assert set_earlier_run_apart(tmp_path) == tmp_path / "earlier-2"
    assert sorted(path.name for path in (tmp_path / "earlier-2").iterdir()) == ["export", "metrics.jsonl"]


@pytest.mark.parametrize("file", ["metrics.jsonl", "health.jsonl"])
def test_a_run_that_goes_back_drops_what_came_later(file, config, tmp_path):
    arguments = config(trainer__callbacks=[HEALTH, METRICS], checkpoint__keep=20)
    assert main(arguments) == 0
    run = tmp_path / "run"
    whole = lines(run / file)
    with (run / file).open("a") as lengthened:
        lengthened.write(json.dumps({"label": "of a longer run", "global_step": 99}) + "\n")
    checkpoint = run / "checkpoints" / "step-00000004.ckpt"
    assert main([*arguments, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2"]) == 0
    assert lines(run / file) == [row for row in whole if row["global_step"] <= 6]
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert lines(run / file) == whole


def test_lines_are_replaced_by_their_key_and_half_ones_dropped(tmp_path):
    path = tmp_path / "folder" / "metrics.jsonl"
    for step, value in ((1, 0.1), (2, 0.2), (2, 0.3)):
        append_row(path, {"label": str(step), "global_step": step, "value": value}, ("label",))
    assert [row["value"] for row in rows(path)] == [0.1, 0.3]
    with path.open("a") as file:
        file.write('{"label": "3", "glob')
    drop_later(path, 1)
    assert [row["value"] for row in rows(path)] == [0.1]
    assert [file.name for file in path.parent.iterdir()] == ["metrics.jsonl"]
