"""``swirl validate``, ``test`` and ``predict`` with the checkpoint of a finished run."""

import json
import math

import pytest
import torch

from swirl_lightning.cli import main
from swirl_lightning.fit import run_trainer


def test_validate_test_and_predict_read_a_checkpoint(config, tmp_path, capsys):
    settings = config(trainer__limit_val_batches=1.0)[1:]
    assert main(["fit", *settings]) == 0
    run = tmp_path / "run"
    trained = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    config_of_the_run = (run / "config.yaml").read_bytes()
    for command, split, given in (("validate", "val", checkpoint), ("test", "test", [])):  # without: the run's last one
        trainer = run_trainer([command, *settings, "--model.token_budget", "999", *given]).trainer
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert {f"{split}/fwm_nll", f"{split}/idm_nll"} <= set(values)
        assert all(math.isfinite(value) and value > 0 for value in values.values())
        module = trainer.lightning_module
        assert all(torch.equal(tensor, trained[name]) for name, tensor in module.state_dict().items())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {row["decoding"] for row in rows if row["label"] == "test"} == {"greedy", "sampled"}
    place = ("phase", "iteration", "epoch", "global_step")
    assert {tuple(row[name] for name in place) for row in rows if row["label"] == "test"} == {("idm", 1, 2, 9)}
    assert main(["predict", *settings]) == 0
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert f"{len(predictions)} predictions in {run / 'predictions.jsonl'}" in capsys.readouterr().out
    assert predictions
    assert all(isinstance(line["prediction"], str) and isinstance(line["inferred_action"], str) for line in predictions)
    assert main(["score", "text", str(run / "predictions.jsonl")]) == 0
    assert (run / "config.yaml").read_bytes() == config_of_the_run


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize("given", [[], ["--ckpt_path", "last"]])
def test_untrained_weights_are_not_evaluated_by_mistake(command, given, config, tmp_path, capsys):
    assert main([command, *config()[1:], *given]) == 1
    said = capsys.readouterr().err
    assert f"swirl {command} evaluates what a run has trained" in said
    assert "checkpoints/last.ckpt does not exist" in said
    assert not (tmp_path / "run").exists()
