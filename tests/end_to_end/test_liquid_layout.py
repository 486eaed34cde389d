"""AURORA records through a small Gemma with Liquid's vocabulary layout: text, unused ids, 8,192 codes from id 256,000."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM

pytest.importorskip("diffusers")
pytest.importorskip("PIL")

from swirl_lightning.cli import main
from swirl_lightning.codecs import load_codec
from swirl_lightning.codecs.image_models import DiffusersVQ
from swirl_lightning.data import read_transitions
from tests.visual import GRID, picture, tokenizer, vq_network

FIRST, CODES = 256_000, 8192
PAPER = Path(__file__).parents[2] / "configs" / "paper" / "visual.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recorded AURORA files, and a model that speaks images, both made by the commands."""
    folder = tmp_path_factory.mktemp("liquid")
    images = folder / "aurora" / "data" / "kubric" / "images"
    images.mkdir(parents=True)
    for x in range(4):
        (images / f"{x}.png").write_bytes(picture(4 * x, 0, colour=(255, 60 * x, 0)))
    rows = [
        {
            "input": f"data/kubric/images/{k % 4}.png",
            "output": f"data/kubric/images/{(k + 1) % 4}.png",
            "instruction": f"go {k}",
        }
        for k in range(20)
    ]
    (folder / "aurora" / "data" / "kubric" / "train.json").write_text(json.dumps(rows))
    (folder / "aurora" / "test.json").write_text(json.dumps([{**row, "task": "kubric"} for row in rows[:4]]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE", str(folder / "cache"))
        assert main(["record", "aurora", "--env.root", str(folder / "aurora"), "--out", str(folder / "data")]) == 0
        sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4}
        torch.manual_seed(0)
        text = tokenizer()
        special = {"bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id}
        GemmaForCausalLM(GemmaConfig(vocab_size=FIRST, num_key_value_heads=1, **sizes, **special)).save_pretrained(
            folder / "gemma"
        )
        text.save_pretrained(str(folder / "gemma"))
        DiffusersVQ(vq_network(codes=CODES)).save(folder / "codec")
        parts = ["--base", str(folder / "gemma"), "--codec", str(folder / "codec"), "--out", str(folder / "model")]
        assert main(["extend", *parts, "--first_code", str(FIRST)]) == 0
        yield folder


def test_codes_have_liquids_ids(folder):
    codec = load_codec(folder / "model")
    ids = codec.encode_state(picture(4, 0))
    assert codec.vocab_size == FIRST + CODES
    assert len(ids) == GRID**2 + 2
    assert all(FIRST <= token < FIRST + CODES for token in ids[1:-1])
    assert len(set(ids[1:-1])) > 1


def test_aurora_goes_through_a_swirl_iteration(folder):
    settings = {
        "seed_everything": 0,
        "run_dir": str(folder / "run"),
        "trainer": {
            "accelerator": "cpu",
            "limit_val_batches": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "swirl_lightning.callbacks.BenchmarkEvaluation", "init_args": {"splits": ["test"], "limit": 2}},
                {"class_path": "swirl_lightning.callbacks.ExportModels"},
            ],
        },
        "model": {
            "world_model": {"base": str(folder / "model")},
            "prompts": {"fwm": ["{state}{action}\n"], "idm": ["{state}{next_state}"]},
            "schedule": {"warmup_epochs": 1, "iterations": 1},
            "fwm": {"group_size": 2, "sampling": {"max_new_tokens": GRID**2 + 3}},
            "idm": {"group_size": 2, "sampling": {"max_new_tokens": 6}},
        },
        "data": {
            "class_path": "swirl_lightning.data.TransitionDataModule",
            "init_args": {
                "path": str(folder / "data"),
                "max_labelled": 2,
                "max_unlabelled": 2,
                "warmup_batch_size": 2,
                "batch_size": 2,
            },
        },
    }
    (folder / "fit.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(folder / "fit.yaml")]) == 0
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows if row["decoding"] == "greedy"] == ["warmup", "swirl-1-fwm", "swirl-1-idm"]
    assert all({"exact_match", "token_accuracy", "changed_accuracy"} <= set(row["fwm"]) for row in rows)
    exported = folder / "run" / "export" / "last" / "fwm"
    assert AutoModelForCausalLM.from_pretrained(exported).config.vocab_size == FIRST + CODES
    first = next(row for row in read_transitions(folder / "data") if row.episode.startswith("test/"))
    assert load_codec(exported).encode_state(first.state) == load_codec(folder / "model").encode_state(first.state)


def test_the_papers_visual_configuration_runs_with_a_tiny_model(folder, monkeypatch, tmp_path):
    """Everything as in the file but for the weights, the image's size and the number of steps; pairs come from a stream."""
    monkeypatch.setenv("SWIRL_CACHE", str(folder / "cache"))
    pairs = [
        {"state": row.state, "next_state": row.next_state, "episode": f"clip {row.episode}"}
        for row in read_transitions(folder / "data")
    ]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "clips.parquet")
    short = {
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.enable_progress_bar": False,
        "run_dir": tmp_path / "run",
    }
    short |= {"trainer.limit_train_batches": 1, "model.schedule.warmup_epochs": 1, "model.schedule.iterations": 1}
    short |= {"model.world_model.base": folder / "model", "model.fwm.sampling.max_new_tokens": GRID**2 + 3}
    short |= {"data.init_args.path": folder / "data", "data.init_args.state_only": tmp_path / "clips.parquet"}
    short |= {"data.init_args.batch_size": 1, "data.init_args.warmup_batch_size": 2, "data.init_args.max_test": 1}
    short |= {"data.init_args.max_val": 1, "model.idm.sampling.max_new_tokens": 8}
    options = [f"--{name}={value}" for name, value in short.items()]
    assert main(["fit", "--config", str(PAPER), *options]) == 0
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert {sample["episode"].partition(" ")[0] for sample in samples} == {"clip"}
    labels = [json.loads(line)["label"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(labels)) == ["warmup", "swirl-1-fwm", "swirl-1-idm"]
