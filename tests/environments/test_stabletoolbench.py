"""MirrorAPI files, in the released format, made by the test."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from swirl_lightning.cli import main
from swirl_lightning.codecs.text import TextCodec
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.tools.stabletoolbench import TEST_SPLITS, StableToolBenchRecorder
from swirl_lightning.world_model.prompts import PromptBuilder, PromptTemplates
from tests.released import call, mirror_api, tiny_qwen


@pytest.fixture
def released(tmp_path):
    return mirror_api(tmp_path)


def test_a_call_is_a_transition(released):
    recorder = StableToolBenchRecorder(*released)
    episodes = list(recorder.record())
    assert recorder.episodes() == len(episodes) == 20 + 5
    first = episodes[0][0]
    assert first.state.startswith("{'api_name': 'api0'")
    assert first.state.endswith("'tool_name': 'T'}")
    assert first.action.startswith("{'category': 'C'")
    assert json.loads(first.next_state) == {"error": "", "response": "api0 0 \x07 ünï"}
    assert [t.step for t in episodes[0]] == [0, 1, 2]
    assert len({t.state for t in episodes[0]}) == len({t.episode for t in episodes[0]}) == 1


def test_record_keeps_the_official_splits_and_draws_validation_from_training(released, tmp_path, capsys):
    train, test = released
    out = tmp_path / "out"
    options = ["--env.train", str(train), "--env.test", str(test), "--out", str(out), "--val_fraction", "0.3"]
    assert main(["record", "stabletoolbench", *options]) == 0
    table = read_transitions(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["calls"] == {"train": 60, **dict.fromkeys(TEST_SPLITS, 3)}
    assert manifest["dropped_unusable"] == 0
    of = dict(zip(table.column("episode"), table.column("split"), strict=True))
    assert {split for episode, split in of.items() if episode.startswith("train/")} == {"train", "val"}
    assert {split for episode, split in of.items() if not episode.startswith("train/")} == {"test"}
    data = TransitionDataModule(str(out))
    data.setup()
    assert len(data.test) == 15
    assert {t.episode for t in data.labelled}.isdisjoint(pair.episode for pair in data.unlabelled)
    assert "test transitions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (call("a", 1, output=""), "field 'output' is empty"),
        (call("a", 1, output=" \n"), "field 'output' is empty"),
        (call("a", 1) | {"output": {"error": "", "response": "x"}}, "field 'output' must be text, got {'error'"),
        (call("a", 1) | {"output": None}, "field 'output' must be text, got nothing"),
        ({"instruction": "API doc:\n{}\n\nRequest:\n{}"}, "field 'output' must be text, got nothing"),
        (call("a", 1) | {"instruction": "API doc:\n{}"}, "field 'instruction' must read"),
        (call("a", 1) | {"instruction": "API doc:\n{}\n\nRequest:\n"}, "field 'instruction' must read"),
        (["not", "a", "record"], "must be an object with instruction and output, got list"),
    ],
)
def test_unusable_records_are_named_or_dropped_and_counted(tmp_path, record, message):
    file = tmp_path / "train.json"
    file.write_text(json.dumps([call("a", 0), record]))
    with pytest.raises(ValueError, match=r"train\.json, record 2: ") as error:
        list(StableToolBenchRecorder(file).record())
    assert message in str(error.value)
    lenient = StableToolBenchRecorder(file, unusable="drop")
    assert [len(episode) for episode in lenient.record()] == [1]
    assert lenient.manifest()["dropped_unusable"] == 1


def test_the_command_says_how_many_records_it_left_out(tmp_path, capsys):
    file = tmp_path / "train.json"
    file.write_text(json.dumps([call("a", 0), call("a", 1, output=""), call("a", 2)]))
    options = ["--env.train", str(file), "--env.unusable", "drop", "--out", str(tmp_path / "out")]
    assert main(["record", "stabletoolbench", *options]) == 0
    assert "unusable records left out 1\n" in capsys.readouterr().out


def test_files_that_cannot_be_read_are_named(released, tmp_path, capsys):
    train, test = released
    train.write_bytes(train.read_bytes()[:-200])
    options = ["record", "stabletoolbench", "--out", str(tmp_path / "out"), "--env.train", str(train)]
    assert main(options) == 1
    assert "train_sft.json: malformed or cut off JSON" in capsys.readouterr().err
    train.write_text("{}")
    assert main(options) == 1
    assert "must hold a JSON list of records, got an object" in capsys.readouterr().err
    (test / "ood.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"ood\.json does not exist"):
        list(StableToolBenchRecorder(test=test).record())
    assert len(list(StableToolBenchRecorder(test=test, test_splits=["id_low"]).record())) == 1
    with pytest.raises(ValueError, match="no test split 'ood_failed'"):
        StableToolBenchRecorder(test=test, test_splits=["ood_failed"])
    with pytest.raises(ValueError, match="name train"):
        StableToolBenchRecorder()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "malformed or cut off JSON after record 0"),
        (b'[{"output": "\xff"}]', "malformed or cut off JSON after record 0"),
        (b"[" * 100_000, "record 1: lists and objects within each other, over 100 deep"),
        (b"null", "must hold a JSON list of records, got null"),
        (b"[]", "got an empty list"),
        (b"[1, {}] more", "record 1: must be an object with instruction and output, got int"),
    ],
)
def test_files_that_hold_no_list_of_records(tmp_path, content, message):
    file = tmp_path / "train.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(StableToolBenchRecorder(file).record())
    assert "\n" not in str(error.value)


def test_a_training_file_is_not_read_whole(tmp_path):
    file = tmp_path / "train.json"
    with file.open("w") as out:
        out.write("[" + ", ".join(json.dumps(call(f"api{n % 50}", n, output=f"{n} " + "x" * 20_000)) for n in range(800)) + "]")
    tracemalloc.start()
    assert sum(len(episode) for episode in StableToolBenchRecorder(file).record()) == 800
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.25 * file.stat().st_size  # the calls themselves, and little more


@pytest.fixture
def qwen(tmp_path, released):
    """A random-weight Qwen2 with a chat template, and recorded transitions."""
    train, test = released
    data, model = tmp_path / "data", tmp_path / "model"
    options = ["--env.train", str(train), "--env.test", str(test), "--val_fraction", "0.2"]
    assert main(["record", "stabletoolbench", "--out", str(data), *options]) == 0
    tiny_qwen(data, model)
    return data, model


PAPER = Path(__file__).parents[2] / "configs" / "paper" / "stabletoolbench.yaml"


@pytest.mark.parametrize("chat", [False, True])
def test_long_documents_are_cut_but_never_the_request_or_the_answer(qwen, chat):
    codec = TextCodec(str(qwen[1]))
    settings = yaml.safe_load(PAPER.read_text())["model"]["prompts"]
    builder = PromptBuilder(codec, PromptTemplates(**{**settings, "chat": chat}), max_prompt_tokens=500)
    short = read_transitions(qwen[0]).transitions()[0]
    long = replace(short, state=short.state * 50, next_state=short.next_state * 50)
    forward, inverse = builder.fwm_prompt(long, long.action), builder.idm_prompt(long)
    assert len(forward.ids) == len(inverse.ids) == 500
    assert forward.cut > 500
    assert inverse.cut > 500
    said, asked = (codec.tokenizer.decode(prompt.ids) for prompt in (forward, inverse))
    assert f"Request:\n{short.action}\n\nWrite the API's answer" in said
    assert ("<|im_start|>system" in said) is ("<|im_start|>assistant" in asked) is chat
    row = builder.fwm_row(long, long.action, short.next_state)
    assert codec.decode_state(row.ids[row.start :]) == short.next_state
    row = builder.idm_row(long, long.next_state, long.action)
    assert codec.decode_action(row.ids[row.start :]) == long.action
