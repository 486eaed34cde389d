"""``trainer.precision``: what it means for the models, from the command to the checkpoint."""

import pytest
import torch
import yaml
from lightning import Trainer

from swirl_lightning.cli import main
from swirl_lightning.distributed.strategies import check_strategy
from tests.reliability.test_failures import scalars


@pytest.mark.parametrize(
    ("storage", "precision", "kept"), [("separate", "bf16-mixed", torch.float32), ("adapters", "bf16-true", torch.float32)]
)
def test_a_run_in_bfloat16(storage, precision, kept, config, tmp_path):
    lora = {"model__world_model__lora": {"r": 4}} if storage == "adapters" else {}
    changes = {"trainer__precision": precision, "model__world_model__storage": storage, "trainer__callbacks": []}
    assert main(config(**changes, **lora)) == 0
    run = tmp_path / "run"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["world_model"]["compute_dtype"] == "bfloat16"
    assert saved["trainer"]["precision"] is None
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    trained = [t for name, t in checkpoint["state_dict"].items() if (".lora_" in name if lora else ".fwm." in name)]
    assert trained
    assert {tensor.dtype for tensor in trained} == {kept}
    for phase in ("fwm", "idm"):
        mismatch = scalars(run, f"{phase}/mismatch").values()
        assert all(0 <= value < 0.1 for value in mismatch)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0


def test_half_precision_is_refused_in_one_message(config, capsys):
    assert main(config(trainer__precision="16-mixed")) == 1
    said = capsys.readouterr().err
    assert said.startswith("swirl: error: trainer.precision 16-mixed is not supported")
    assert "bf16-mixed" in said


def test_a_trainers_own_precision_is_refused_with_the_setting_that_does_the_same():
    with pytest.raises(ValueError, match=r"precision='bf16-mixed'.*compute_dtype to 'bfloat16'"):
        check_strategy(Trainer(precision="bf16-mixed", accelerator="cpu", logger=False).strategy)
    check_strategy(Trainer(accelerator="cpu", logger=False).strategy)
