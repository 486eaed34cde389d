"""`swirl init`: model and tokenizer of a folder belong together, for every architecture's own tokenizer."""

import json

import pytest
from transformers import AutoConfig, AutoTokenizer

from swirl_lightning.cli import main

ROW = {"state": "agent 1 2 west", "next_state": "agent 1 2 north", "action": "turn left", "episode": "e0", "step": 0}


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
def test_embeddings_cover_the_tokenizer_as_it_is_loaded(tmp_path, model_type):
    data, out = tmp_path / "data.jsonl", tmp_path / "model"
    rows = [ROW, {**ROW, "episode": "e1"}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["init", "--data", str(data), "--out", str(out), "--model_type", model_type]) == 0
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) <= AutoConfig.from_pretrained(out).vocab_size
    assert tokenizer.decode(tokenizer("turn left")["input_ids"]).endswith("turn left")


def test_a_missing_extra_ends_in_one_message(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "minigrid", None)
    assert main(["record", "doorkey", "--out", str(tmp_path / "nowhere")]) == 1
    assert "pip install" in capsys.readouterr().err
