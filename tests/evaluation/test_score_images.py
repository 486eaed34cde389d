"""Predicted images: pixels, CLIP with a model of its own, a judge on this machine, and what a file may not hold."""

import json
import threading

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from swirl_lightning.cli import main
from swirl_lightning.codecs.image_pixels import load_rgb, to_png
from swirl_lightning.commands.score_images import score_images
from swirl_lightning.evaluation.judge import Judge
from swirl_lightning.metrics.clip import ClipEncoder, clip_similarities
from tests.evaluation.test_judge import Server, reply, said

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small CLIP of random weights as transformers saves one."""
    folder = tmp_path_factory.mktemp("clip")
    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16}
    text = size | {"vocab_size": len(words), "max_position_embeddings": 20, "eos_token_id": len(words) - 1, "bos_token_id": 52}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=size | {"image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


def image(seed):
    return to_png(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture
def predictions(tmp_path):
    """Three lines: a right prediction, a wrong one, and a copy."""

    def write(**more):
        lines = []
        for i, drawn in enumerate((20, 1, 12)):
            for name, seed in (("p", drawn), ("r", 20 + i), ("s", 10 + i)):
                (tmp_path / f"{name}{i}.png").write_bytes(image(seed))
            line = {
                "prediction": f"p{i}.png",
                "reference": f"r{i}.png",
                "state": f"s{i}.png",
                "split": "zoom" if i else "motion",
            }
            lines.append(line | {"action": f"turn {i}", "caption": "a dog", "state_caption": "a cat"} | more)
        file = tmp_path / "predictions.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    return write


def test_similarities_are_those_of_clip_itself(clip):
    encoder, model, tokenizer = ClipEncoder(clip), CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    images, captions = [image(i) for i in range(3)], ["a dog", "two cats on a mat and a very long rest of it", "b"]
    texts = tokenizer(captions, padding=True, truncation=True, max_length=20, return_tensors="pt")
    inputs = CLIPImageProcessorPil.from_pretrained(clip)(images=[load_rgb(i) for i in images], return_tensors="pt")
    with torch.no_grad():
        out = model(**texts, **inputs)
    expected = out.logits_per_image / model.logit_scale.exp()
    values = clip_similarities(encoder, images, images, captions=captions)
    assert torch.allclose(values["clip_text"], expected.diagonal(), atol=1e-5)
    assert torch.allclose(values["clip_image"], torch.ones(3))


def test_directions_are_of_what_changed(clip):
    encoder = ClipEncoder(clip)
    drawn, true, before = ([image(seed)] for seed in (1, 2, 3))
    e = {seed: encoder.images([image(seed)])[0] for seed in (1, 2, 3)}
    t = encoder.texts(["a dog", "a cat"])
    values = clip_similarities(encoder, drawn, true, states=before, captions=["a dog"], state_captions=["a cat"])
    cosine = torch.nn.functional.cosine_similarity
    assert float(values["clip_direction_image"]) == pytest.approx(float(cosine(e[1] - e[3], e[2] - e[3], dim=0)), abs=1e-5)
    assert float(values["clip_direction_text"]) == pytest.approx(float(cosine(e[1] - e[3], t[0] - t[1], dim=0)), abs=1e-5)
    assert torch.isnan(clip_similarities(encoder, before, true, states=before)["clip_direction_image"]).all()


def test_the_table_has_splits_copies_and_only_defined_directions(clip, predictions, capsys):
    file = predictions()
    assert main(["score", "images", str(file), "--clip", str(clip)]) == 0
    table = capsys.readouterr().out
    assert "| motion | prediction | 1 | 100.00 | 1.0000 | 1.0000 |" in table
    report = json.loads(file.with_suffix(".scores.json").read_text())
    by = {(result["split"], result["row"]): result for result in report["results"]}
    assert set(by) == {(split, row) for split in ("motion", "zoom", "all") for row in ("prediction", "copy")}
    assert by["zoom", "prediction"]["counts"] == {"clip_direction_image": 1, "clip_direction_text": 1}  # one is a copy
    assert by["motion", "prediction"]["measures"]["clip_direction_image"] == pytest.approx(1)
    assert "clip_direction_image" not in by["all", "copy"]["measures"]
    assert by["zoom", "copy"]["measures"]["psnr"] < 20
    assert report["rows"][0]["psnr"] == 100


def test_a_judge_scores_and_its_failures_are_counted(predictions, tmp_path):
    def answer(handler):
        asked = json.dumps(handler.server.seen[-1])  # one question at a time
        (reply(400) if "turn 1" in asked else said('{"score": 7, "reason": "nearly"}'))(handler)

    server = Server([answer])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judge = Judge(f"http://127.0.0.1:{server.server_port}", "m", tmp_path / "cache.db", tries=1, concurrency=1)
    printed = score_images(predictions(), tmp_path / "out.json", None, judge)
    server.shutdown()
    server.server_close()
    report = json.loads((tmp_path / "out.json").read_text())
    assert "2 failed" in printed
    assert "2 without a score" in printed
    assert [failure["line"] for failure in report["failures"]] == [2, 2]
    assert [row.get("judge_success") for row in report["rows"]] == [7, None, 7]
    whole = next(r for r in report["results"] if (r["split"], r["row"]) == ("all", "prediction"))
    assert whole["measures"]["judge_restraint"] == 7
    assert whole["counts"]["judge_success"] == 2


def test_what_is_wrong_is_named_with_its_line(predictions, tmp_path, capfd):
    def says(file, *more):
        assert main(["score", "images", str(file), *more]) == 1
        return capfd.readouterr().err

    assert "line 1: field 'reference' names" in says(predictions(reference="nowhere.png"))
    assert "line 1: field 'prediction' must be text" in says(predictions(prediction=3))
    file = predictions()
    file.write_text(file.read_text() + '{"prediction": "p0.png", "reference": "r0.png"}\n')
    assert "line 4: has the fields prediction, reference, but the lines before have" in says(file)
    assert "is no folder with a model" in says(predictions(), "--clip", str(tmp_path / "nowhere"))
    (tmp_path / "p1.png").write_bytes(b"no image")
    assert "not a readable image" in says(tmp_path / "predictions.jsonl")
