"""An image world through every command: record, train a codec, init, fit with pictures, export, imagine."""

import json
import math
import threading

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swirl_lightning.cli import main

pytest.importorskip("av")
pytest.importorskip("diffusers")
pytest.importorskip("minigrid")
Image = pytest.importorskip("PIL.Image")

from swirl_lightning.codecs import load_codec  # noqa: E402
from swirl_lightning.data import read_transitions  # noqa: E402
from tests.environments.test_video import write  # noqa: E402
from tests.environments.test_world_prediction import segment  # noqa: E402
from tests.evaluation.test_judge import Server, said  # noqa: E402

READER = {"reader": "swirl_lightning.environments.visual.minigrid_images:read_cells"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run; its folder holds data, codec, model and run."""
    folder = tmp_path_factory.mktemp("visual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE", str(folder / "cache"))
        options = ["--env.n_episodes", "8", "--env.max_steps", "6", "--val_fraction", "0.3", "--test_fraction", "0.2"]
        assert main(["record", "minigrid_images", "--out", str(folder / "data"), *options]) == 0
        trainer = {
            "accelerator": "cpu",
            "max_epochs": 2,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
        }
        codec = {
            "seed_everything": 0,
            "out": str(folder / "codec"),
            "trainer": trainer,
            "model": {"codes": 32, "channels": [4, 4, 8, 8], "restart_every": 1, **READER},
            "data": {"path": str(folder / "data"), "tile": 8, "batch_size": 4, "max_frames": 20},
        }
        (folder / "codec.yaml").write_text(yaml.safe_dump(codec))
        assert main(["codec", "--config", str(folder / "codec.yaml")]) == 0
        sizes = ["--hidden_size", "32", "--layers", "1", "--heads", "2", "--vocab_size", "300", "--max_positions", "256"]
        model = ["--codec", str(folder / "codec"), "--out", str(folder / "model")]
        assert main(["init", "--data", str(folder / "data"), *model, *sizes]) == 0
        success = {"class_path": "swirl_lightning.metrics.images.DecodedSuccess", "init_args": READER}
        settings = {
            "seed_everything": 0,
            "run_dir": str(folder / "run"),
            "trainer": {
                "accelerator": "cpu",
                "limit_val_batches": 0,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "callbacks": [
                    {
                        "class_path": "swirl_lightning.callbacks.ImageSamples",
                        "init_args": {"pairs": 2, "members": 2, "steps": 2},
                    },
                    {"class_path": "swirl_lightning.callbacks.RolloutSampler"},
                    {
                        "class_path": "swirl_lightning.callbacks.BenchmarkEvaluation",
                        "init_args": {"limit": 3, "extra": {"world": success}},
                    },
                    {"class_path": "swirl_lightning.callbacks.ExportModels"},
                ],
            },
            "model": {
                "world_model": {"base": str(folder / "model")},
                "prompts": {"fwm": ["{state}{action}\n"], "idm": ["{state}{next_state}"]},
                "max_prompt_tokens": 160,
                "schedule": {"warmup_epochs": 1, "iterations": 1},
                "fwm": {"group_size": 2, "sampling": {"max_new_tokens": 67}},
                "idm": {"group_size": 2, "sampling": {"max_new_tokens": 20}},
            },
            "data": {
                "class_path": "swirl_lightning.data.TransitionDataModule",
                "init_args": {
                    "path": str(folder / "data"),
                    "max_labelled": 6,
                    "max_unlabelled": 4,
                    "warmup_batch_size": 3,
                    "batch_size": 2,
                },
            },
        }
        (folder / "fit.yaml").write_text(yaml.safe_dump(settings))
        assert main(["fit", "--config", str(folder / "fit.yaml")]) == 0
    return folder


def test_the_codec_reports_what_it_measured(run):
    report = json.loads((run / "codec" / "report.json").read_text())
    shares = {"cells_right", "worlds_right", "codes_kept"}
    assert set(report) == {"psnr", "ssim", "codes_used", "code_perplexity", *shares}
    assert all(0 <= report[name] <= 1 for name in shares)
    assert report["worlds_right"] <= report["cells_right"]
    assert report["codes_kept"] == 1.0  # a tile is encoded by itself
    assert 1 <= report["codes_used"] <= 32
    assert report["psnr"] > 0
    assert Image.open(run / "codec" / "reconstructions.png").height == 128


def test_every_phase_is_measured_in_tokens_and_in_the_world(run):
    rows = [json.loads(line) for line in (run / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows if row["decoding"] == "greedy"] == ["warmup", "swirl-1-fwm", "swirl-1-idm"]
    for row in rows:
        assert {"exact_match", "token_accuracy", "changed_accuracy", "copy_rate", "world"} <= set(row["fwm"])
        assert "bleu" not in row["fwm"]
        assert row["copy"]["copy_rate"] == 1.0
        assert all(math.isfinite(value) for value in row["fwm"].values())


def test_pictures_go_to_files_and_tensorboard(run):
    pictures = run / "run" / "pictures"
    for label in ("warmup", "swirl-1-fwm", "swirl-1-idm"):
        groups = Image.open(pictures / f"groups-{label}.png")
        assert groups.width > 4 * 128
        assert groups.height > 2 * 128
        assert Image.open(pictures / f"rollout-{label}.gif").n_frames >= 2
    events = EventAccumulator(str(run / "run"))
    events.Reload()
    assert {"pictures/groups", "pictures/rollout"} <= set(events.Tags()["images"])


def test_imagine_writes_images_a_strip_and_a_gif(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))
    first = tmp_path / "first.png"
    first.write_bytes(read_transitions(run / "data")[0].state)
    fwm = ["--fwm", str(run / "run" / "export" / "last" / "fwm")]
    actions = ["--actions", "[turn left, turn left, move forward]", "--out", str(tmp_path / "out")]
    assert main(["imagine", *fwm, "--state", str(first), *actions]) == 0
    assert (tmp_path / "out" / "000.png").read_bytes() == first.read_bytes()
    assert [Image.open(tmp_path / "out" / f"00{i}.png").size for i in range(4)] == [(64, 64)] * 4
    assert Image.open(tmp_path / "out" / "rollout.gif").format == "GIF"
    assert Image.open(tmp_path / "out" / "strip.png").width > 4 * 128
    assert main(["imagine", *fwm, "--state", "nowhere.png", *actions]) == 1
    assert "there is no image 'nowhere.png'" in capsys.readouterr().err


def test_turns_of_several_models_in_one_table(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))
    exports = {name: str(run / "run" / "export" / name / "fwm") for name in ("warmup", "last")}
    data = ["--data", str(run / "data"), "--split", "train"]
    options = ["--steps", "2", "--limit", "3", "--reader", READER["reader"], "--out", str(tmp_path / "turns.json")]
    assert main(["turns", "--models", json.dumps(exports), *data, *options]) == 0
    shown = capsys.readouterr().out
    assert "world_right, 3 stretches of 2 steps, split train" in shown
    assert "| model | turn 1 | turn 2 |" in shown
    assert all(f"| {name} | " in shown for name in exports)
    written = json.loads((tmp_path / "turns.json").read_text())
    assert list(written["models"]) == ["warmup", "last"]
    for turns in written["models"].values():
        assert [set(turn) for turn in turns] == [{"exact_match", "world_right"}] * 2
    assert main(["turns", "--models", json.dumps(exports), *data, "--steps", "9"]) == 1
    assert "take fewer --steps" in capsys.readouterr().err


def test_forecasts_are_images_that_score_reads(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))
    fwm, file = str(run / "run" / "export" / "last" / "fwm"), tmp_path / "forecasts.jsonl"
    assert main(["forecast", str(run / "data"), fwm, str(file), "--limit", "3", "--by", "episode"]) == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 3
    assert all(
        Image.open(tmp_path / line[name]).size[0] == Image.open(tmp_path / lines[0]["state"]).size[0]
        for line in lines
        for name in ("prediction", "reference")
    )
    assert all(line["split"] == line["episode"].partition("/")[0] for line in lines)
    assert main(["score", "images", str(file)]) == 0
    assert "| prediction | 3 | " in capsys.readouterr().out


def test_disc_edit_asks_what_an_edit_changes(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))
    pairs = read_transitions(run / "data").pairs()
    folder = tmp_path / "aurora" / "disc_edit_data" / "rooms"
    folder.mkdir(parents=True)
    records = []
    for i in range(3):
        (tmp_path / "aurora" / f"{i}.png").write_bytes(pairs[i].state)
        records.append({"input": f"{i}.png", "pos": "turn left", "neg": "turn left" if i == 0 else "move forward"})
    (folder / "valid.json").write_text(json.dumps(records))
    fwm, out = str(run / "run" / "export" / "last" / "fwm"), tmp_path / "out.json"
    assert main(["disc-edit", str(tmp_path / "aurora"), fwm, "--samples", "2", "--out", str(out)]) == 0
    assert "| rooms | 3 | " in capsys.readouterr().out
    same, *others = json.loads(out.read_text())["tasks"]["rooms"]
    assert (same["sampled"], same["likelihood"]) == (0.5, 0.5)  # one edit twice: the same draws and the same likelihood
    assert same["changed_pos"] == same["changed_neg"]
    assert all(row["likelihood"] in (0.0, 1.0) and 0 <= row["changed_neg"] <= 1 for row in others)
    assert main(["disc-edit", str(tmp_path), fwm]) == 1
    assert "no disc_edit_data/<task>/valid.json" in capsys.readouterr().err


def test_plans_of_world_prediction_are_rolled_out_and_judged(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "videos" / "COIN").mkdir(parents=True)
    write(tmp_path / "videos" / "COIN" / "one.mp4", [(t / 10, np.full((96, 96, 3), 8 * t)) for t in range(30)])
    segments = {name: segment(i, i + 1, "move forward") for i, name in enumerate("abc")}
    long, short = ({"ground_truth": 1, "candidates": [list(plan)], "action_segments": segments} for plan in ("abc", "ab"))
    (tmp_path / "bench.json").write_text(json.dumps({"COIN": {"s1": long, "s2": short}}))
    fwm, out = str(run / "run" / "export" / "last" / "fwm"), tmp_path / "out.jsonl"
    assert main(["world-prediction", str(tmp_path / "bench.json"), fwm, str(out)]) == 0
    assert "5 predictions of 2 samples" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["split"] for line in lines] == ["COIN/turn 1"] * 2 + ["COIN/turn 2"] * 2 + ["COIN/turn 3"]
    image = {(line["sample"], line["split"][-1]): line for line in lines}
    fed_back = (tmp_path / image["s1", "2"]["state"]).read_bytes()
    assert fed_back == (tmp_path / image["s1", "1"]["prediction"]).read_bytes()
    assert main(["score", "images", str(out)]) == 1
    assert "only a judge can score it" in capsys.readouterr().err
    server = Server([said('{"score": 3, "reason": "hardly"}')])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judge = {"base_url": f"http://127.0.0.1:{server.server_port}", "model": "m", "cache": str(tmp_path / "judge.sqlite")}
    assert main(["score", "images", str(out), *(f"--judge.{name}={value}" for name, value in judge.items())]) == 0
    server.shutdown()
    server.server_close()
    assert "| COIN/turn 3 | prediction | 1 | 3.00 | 3.00 |" in capsys.readouterr().out


def test_an_export_stands_alone(run, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))
    folder = run / "run" / "export" / "last" / "fwm"
    codec = load_codec(folder)
    assert (codec.images.codes, codec.images.size, codec.images.grid) == (32, 64, 8)
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == codec.vocab_size


def test_text_and_image_models_are_not_mixed_up(run, tmp_path, capsys):
    assert main(["init", "--data", str(run / "data"), "--out", str(tmp_path / "m")]) == 1
    assert "holds images: give --codec" in capsys.readouterr().err
