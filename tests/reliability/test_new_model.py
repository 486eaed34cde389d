"""``model.world_model.base`` that describes a new model: made from the training split at the first fit, found again later."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoConfig, AutoTokenizer

from swirl_lightning.cli import main
from swirl_lightning.codecs.bpe import texts
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.types import Splits, Transition
from swirl_lightning.world_model.new import NewModel

NEW = {"hidden_size": 32, "layers": 1, "heads": 2, "vocab_size": 300, "max_positions": 160}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Arguments of a run that records, makes its model and trains, and its folder, finished."""
    pytest.importorskip("minigrid")
    folder = tmp_path_factory.mktemp("one-command")
    data = {"path": str(folder / "data"), "recorder": {"n_episodes": 16, "max_steps": 12}}
    data |= {"max_labelled": 12, "max_unlabelled": 12, "warmup_batch_size": 4, "batch_size": 4}
    roles = {"group_size": 2, "sampling": {"max_new_tokens": 40}}
    config = {
        "run_dir": str(folder / "run"),
        "trainer": {
            "accelerator": "cpu",
            "limit_val_batches": 0,
            "limit_train_batches": 1,
            "enable_progress_bar": False,
            "callbacks": [],
        },
        "model": {
            "world_model": {"base": NEW},
            "max_prompt_tokens": 120,
            "schedule": {"warmup_epochs": 1, "iterations": 1},
            "fwm": roles,
            "idm": roles,
        },
        "data": {"class_path": "DoorKeyDataModule", "init_args": data},
    }
    (folder / "run.yaml").write_text(json.dumps(config))
    arguments = ["fit", "--config", str(folder / "run.yaml"), "--seed_everything", "0"]
    assert main(arguments) == 0
    return arguments, folder


def stamps(folder):
    return {file.name: file.stat().st_mtime_ns for file in Path(folder).iterdir()}


def test_one_command_records_makes_the_model_and_trains(run):
    _, folder = run
    assert (folder / "data" / "manifest.json").is_file()
    assert AutoConfig.from_pretrained(folder / "run" / "model").hidden_size == 32
    assert (folder / "run" / "checkpoints" / "last.ckpt").exists()


def test_the_tokenizer_learns_from_the_training_split_alone(tmp_path):
    rows = [
        {"state": f"at {e}", "next_state": f"at {e} then", "action": f"act{e}x", "episode": e, "split": split}
        for e, split in (("one", "train"), ("two", "train"), ("three", "val"), ("four", "test"))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = TransitionDataModule(str(tmp_path / "rows.jsonl"))
    data.setup("fit")
    learned = "\n".join(texts([*data.labelled, *data.unlabelled]))
    (labelled,), (pair,) = data.labelled, data.unlabelled
    assert labelled.action in learned
    assert pair.state in learned
    assert f"act{pair.episode}x" not in learned
    assert "three" not in learned
    assert "four" not in learned
    assert main(["init", "--data", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "a"), "--vocab_size", "300"]) == 0
    NewModel(vocab_size=300).make([*data.labelled, *data.unlabelled], tmp_path / "b")
    for name in ("tokenizer.json", "config.json"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_resuming_and_testing_find_the_model(run, capsys):
    arguments, folder = run
    before = stamps(folder / "run" / "model")
    assert main([*arguments, "--ckpt_path", "last", "--model.schedule.iterations", "2"]) == 0
    test = ["test", *arguments[1:], "--ckpt_path", str(folder / "run" / "checkpoints" / "last.ckpt")]
    assert main(test) == 0
    assert stamps(folder / "run" / "model") == before
    assert main(["export", str(folder / "run"), str(folder / "out")]) == 0
    assert len(AutoTokenizer.from_pretrained(folder / "out" / "fwm")) <= 300
    assert "fwm" in capsys.readouterr().out


def test_resuming_with_other_text_or_options_is_refused(run, capsys):
    arguments, folder = run
    before = stamps(folder / "run" / "model")
    for change in (["--model.world_model.base.layers", "2"], ["--data.init_args.max_labelled", "8"]):
        assert main([*arguments, "--ckpt_path", "last", *change]) == 1
        said = capsys.readouterr().err
        assert f"model.world_model.base: {folder / 'run' / 'model'}" in said
    elsewhere = ["--run_dir", str(folder / "elsewhere"), "--ckpt_path", str(folder / "run" / "checkpoints" / "last.ckpt")]
    assert main([*arguments, *elsewhere, "--data.init_args.max_labelled", "8"]) == 1
    assert "another new model" in capsys.readouterr().err
    assert stamps(folder / "run" / "model") == before


def test_a_run_that_begins_anew_makes_its_model_anew(run):
    arguments, folder = run
    assert main([*arguments, "--model.world_model.base.layers", "2", "--model.schedule.iterations", "0"]) == 0
    assert AutoConfig.from_pretrained(folder / "run" / "model").num_hidden_layers == 2
    assert AutoConfig.from_pretrained(folder / "run" / "earlier-1" / "model").num_hidden_layers == 1


def test_a_folder_of_somebody_else_stays(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds another model"):
        NewModel().for_run(SimpleNamespace(default_root_dir=tmp_path), Splits())
    assert (model / "mine.txt").read_text() == "mine"


def test_images_need_a_codec_and_text_none(tmp_path):
    text, image = (Transition(state, state, "a", episode="e") for state in ("x", b"x"))
    for rows, codec, said in (([], None, "split is empty"), ([text], "c", "holds text"), ([image], None, "holds images: give")):
        with pytest.raises(ValueError, match=said):
            NewModel(codec=codec).make(rows, tmp_path)
