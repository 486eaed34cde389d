"""``swirl validate``, ``test`` and ``predict`` with the checkpoint of a finished run."""

import json
import math

import torch

from swirl_lightning.cli import main, run_trainer


def test_validate_test_and_predict_read_a_checkpoint(config, tmp_path, monkeypatch):
    settings = config(trainer__limit_val_batches=1.0)[1:]
    assert main(["fit", *settings]) == 0
    run = tmp_path / "run"
    trained = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    for command, split in (("validate", "val"), ("test", "test")):
        trainer = run_trainer([command, *settings, *checkpoint]).trainer
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert {f"{split}/fwm_nll", f"{split}/idm_nll"} <= set(values)
        assert all(math.isfinite(value) and value > 0 for value in values.values())
        module = trainer.lightning_module
        assert all(torch.equal(tensor, trained[name]) for name, tensor in module.state_dict().items())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {row["decoding"] for row in rows if row["label"] == "test"} == {"greedy", "sampled"}
    assert main(["predict", *settings, *checkpoint]) == 0
