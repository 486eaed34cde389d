"""``swirl fit`` on families with a head, an attention or a cache of their own: every phase, exports that score as the run."""

import json
import shutil

import pytest
import torch
import yaml

from swirl_lightning.cli import main
from swirl_lightning.commands.loading import inference_from_run
from swirl_lightning.types import Role, UnlabelledPair
from swirl_lightning.world_model.loading import load_causal_lm
from tests.architectures.families import REFUSED, tiny

FAMILIES = ["granite", "cohere", "gemma2", "gpt_oss", "qwen3_5_text", "lfm2", "falcon_h1", "mamba2", "jamba", "qwen3_vl"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A lamp that is switched, as transitions, and a tokenizer made from them."""
    folder = tmp_path_factory.mktemp("lamp")
    rows = [
        {
            "state": f"room {e % 3} lamp {'on' if s % 2 else 'off'}",
            "action": "switch" if (e + s) % 3 else "wait",
            "next_state": f"room {e % 3} lamp {'off' if (s % 2) == ((e + s) % 3 > 0) else 'on'}",
            "episode": f"e{e}",
            "step": s,
        }
        for e in range(8)
        for s in range(3)
    ]
    (folder / "lamp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = ["--hidden_size", "32", "--layers", "1", "--heads", "2", "--vocab_size", "290", "--max_positions", "128"]
    assert main(["init", "--data", str(folder / "lamp.jsonl"), "--out", str(folder / "model"), *sizes]) == 0
    return folder


def fit(name, data, folder, **world_model):
    """Status of ``swirl fit`` with a tiny model of a family; its base and its run are in the folder."""
    base = folder / "base"
    shutil.copytree(data / "model", base)
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    tiny(name, vocab_size=vocabulary).save_pretrained(base)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(data, base, folder / "run", **world_model)))
    return main(["fit", "--config", str(folder / "config.yaml")])


def settings(data, base, run, **world_model):
    limits = {"limit_train_batches": 1, "limit_val_batches": 0, "enable_progress_bar": False, "enable_model_summary": False}
    role = {"group_size": 2, "sampling": {"max_new_tokens": 12}}
    return {
        "seed_everything": 0,
        "run_dir": str(run),
        "trainer": {
            "accelerator": "cpu",
            **limits,
            "callbacks": [{"class_path": "swirl_lightning.callbacks.ExportModels"}],
        },
        "model": {
            "world_model": {"base": str(base), **world_model},
            "max_prompt_tokens": 100,
            "schedule": {"warmup_epochs": 1, "iterations": 1},
            "fwm": role,
            "idm": role,
        },
        "data": {
            "class_path": "swirl_lightning.data.TransitionDataModule",
            "init_args": {"path": str(data / "lamp.jsonl"), "warmup_batch_size": 2, "batch_size": 2},
        },
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_fit_runs_and_what_it_exports_scores_as_it_did(name, data, tmp_path):
    assert fit(name, data, tmp_path) == 0
    base, run = tmp_path / "base", tmp_path / "run"
    inference = inference_from_run(run)
    pair = UnlabelledPair("room 1 lamp on", "room 1 lamp off")
    rows = {
        Role.FWM: inference.prompts.fwm_row(pair, "switch", "room 1 lamp off"),
        Role.IDM: inference.prompts.idm_row(pair, pair.next_state, "switch"),
    }
    for role, row in rows.items():
        exported = load_causal_lm(str(run / "export" / "last" / role.value))
        exported.set_attn_implementation("eager")
        with torch.no_grad():
            logits = exported(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, row.start - 1 : -1]
        wanted = torch.log_softmax(logits, dim=-1).gather(-1, torch.tensor(row.ids[row.start :])[:, None])[:, 0]
        scores = inference.score_rows(role, [[row]])
        torch.testing.assert_close(scores.logprobs[0], wanted, atol=1e-4, rtol=0)
    moved = [load_causal_lm(str(folder)).state_dict() for folder in (base, run / "export" / "last" / "fwm")]
    assert any(not torch.equal(value, moved[1][key]) for key, value in moved[0].items())


def test_adapters_of_a_vision_language_model_leave_its_vision_tower_out(data, tmp_path):
    assert fit("smolvlm", data, tmp_path, storage="adapters") == 0
    for role in ("fwm", "idm"):
        names = load_causal_lm(str(tmp_path / "run" / "export" / "last" / role)).state_dict()
        base = load_causal_lm(str(tmp_path / "base")).state_dict()
        changed = [name for name, value in names.items() if not torch.equal(value, base[name])]
        assert changed
        assert not [name for name in changed if "vision" in name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_is_not_computed_right_stops_before_training(name, data, tmp_path, capsys):
    assert fit(name, data, tmp_path) != 0
    error = capsys.readouterr().err
    assert error.count("nothing is trained") == 1
    assert "Traceback" not in error
    assert not list((tmp_path / "run").rglob("*.ckpt"))
