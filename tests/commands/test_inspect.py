"""``swirl inspect``: what the models will see, from a file that nobody described or from the YAML of ``swirl fit``."""

import json

import pytest
import yaml

from swirl_lightning.cli import main
from swirl_lightning.codecs import load_codec
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.types import Role
from swirl_lightning.world_model.prompts import PromptBuilder
from tests.commands.conftest import write


def findings(arguments, capsys):
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_that_nobody_described(house, capsys):
    made = findings([house], capsys)
    assert made["guessed"]
    assert made["columns"] == {"state": "steps.observation", "action": "steps.action", "episode": "id", "context": "goal"}
    settings = yaml.safe_load(made["yaml"])["data"]
    data = TransitionDataModule(**settings["init_args"])  # as it would be pasted
    data.setup()
    sizes = {"labelled": len(data.labelled), "state_only": len(data.unlabelled), "val": len(data.val), "test": len(data.test)}
    assert {name: split["transitions"] for name, split in made["splits"].items()} == sizes
    assert sum(sizes.values()) == 20 * 5
    assert made["labelled_share"] == (100 - sizes["state_only"]) / 100
    assert made["actions"]["distinct"] == 4
    assert made["lengths"]["unit"] == "characters"
    assert [(e["role"], bool(e["answer"])) for e in made["examples"]] == [("fwm", True)] * 3 + [("idm", True)] * 3
    assert main(["inspect", str(house)]) == 0
    text = capsys.readouterr().out
    assert "state: steps.observation" in text
    assert "these are characters" in text


def test_what_can_be_told_from_what(tmp_path, capsys):
    def row(x, y, z, n):
        return {"state": x, "next_state": y, "action": z, "episode": str(n), "step": 0, "split": "train"}

    asked = [("a", "b", "z"), ("a", "b", "z"), ("a", "b", "other"), ("a", "c", "z"), ("d", "d", "wait"), ("d", "e", "go")]
    file = write(tmp_path / "rows.jsonl", [row(*one, n) for n, one in enumerate(asked * 2)])
    made = findings([file, "--columns", "{}"], capsys)
    labelled = made["splits"]["labelled"]
    size = labelled["transitions"]
    assert size == 6  # half of twelve episodes
    assert not made["guessed"]
    everything = {**made["ambiguity"]["idm"]}
    data = TransitionDataModule(str(file), val_fraction=0, test_fraction=0)
    data.setup("fit")
    pairs = [(t.state, t.next_state) for t in data.labelled]
    answers = {}
    for t in data.labelled:
        answers.setdefault((t.state, t.next_state), []).append(t.action)
    best = sum(max(map(z.count, z)) for z in answers.values())
    several = sum(len(z) for z in answers.values() if len(set(z)) > 1)
    assert everything["ceiling"] == pytest.approx(best / size)
    assert everything["ambiguous"] == pytest.approx(several / size)
    assert everything["seen_again"] == pytest.approx(sum(pairs.count(p) > 1 for p in pairs) / size)
    assert labelled["no_ops"] == pytest.approx(sum(x == y for x, y in pairs) / size)
    keys = [(t.state, t.next_state, t.action) for t in data.labelled]
    assert labelled["repeats"] == pytest.approx(1 - len(set(keys)) / size)


def test_states_alone(tmp_path, capsys):
    states = [f"Frame {i}: the ball is at {i % 4}." for i in range(6)]
    file = write(tmp_path / "films.jsonl", [{"film": n, "states": states} for n in range(3)])
    made = findings([file], capsys)
    settings = yaml.safe_load(made["yaml"])["data"]["init_args"]
    assert settings["state_only"] == str(file)
    assert settings["state_only_columns"] == {"state": "states"}
    assert settings["path"] == "YOUR_LABELLED_FILE"
    assert {name: one["transitions"] for name, one in made["splits"].items()} == {"state_only": 15}
    assert [e["role"] for e in made["examples"]] == ["idm"] * 3
    assert {e["answer"] for e in made["examples"]} == {None}


@pytest.fixture(scope="module")
def config(house, model, tmp_path_factory):
    settings = {
        "run_dir": "elsewhere",
        "trainer": {"max_steps": 3},
        "model": {
            "world_model": {"base": str(model)},
            "max_prompt_tokens": 24,
            "schedule": {"warmup_epochs": 1, "iterations": 1},
            "idm": {"sampling": {"max_new_tokens": 2}},
        },
        "data": {
            "class_path": "swirl_lightning.data.TransitionDataModule",
            "init_args": {
                "path": str(house),
                "columns": {"state": "steps.observation", "action": "steps.action", "episode": "id", "context": "goal"},
            },
        },
    }
    file = tmp_path_factory.mktemp("config") / "fit.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def test_the_yaml_of_fit(config, model, capsys):
    made = findings(["--config", config, "--data.init_args.labelled_fraction", "1"], capsys)
    assert made["lengths"]["unit"] == "tokens"
    assert made["splits"]["state_only"]["transitions"] == 0
    assert "unlabelled split" in made["notes"][0]  # as `swirl fit` will say
    assert "{context}" in made["notes"][1]
    assert made["set"]["max_prompt_tokens"] == 24
    data = TransitionDataModule(str(data_path(config)), columns(config), labelled_fraction=1.0)
    data.setup("validate")
    whole = PromptBuilder(load_codec(model), max_prompt_tokens=10_000)
    rows = [*data.labelled, *data.val, *data.test]
    prompts = [len(whole.fwm_prompt(t, t.action).ids) for t in rows] + [len(whole.idm_prompt(t).ids) for t in rows]
    assert made["fits"] == {
        "max_prompt_tokens": max(prompts),
        "fwm.sampling.max_new_tokens": max(len(whole.state_completion(t.next_state)) for t in rows),
        "idm.sampling.max_new_tokens": max(len(whole.action_completion(t.action)) for t in rows),
    }
    cut = [e for e in made["examples"] if e["role"] == Role.IDM.value]
    assert all(e["cut"] > 0 and "[... cut ...]" in e["prompt"] for e in cut)
    assert all(len(e["prompt_tokens"]) == 24 for e in cut)
    assert all(e["answer_cut"] == len(e["answer_tokens"]) - 2 for e in cut)
    assert main(["inspect", "--config", str(config), "--data.init_args.labelled_fraction", "1"]) == 0
    assert "now 24: longer ones are cut" in capsys.readouterr().out


def test_of_a_stream_the_first_pairs_are_shown(config, house, tmp_path, capsys):
    rows = [{"film": n, "states": [f"Frame {i} of {n}." for i in range(4)]} for n in range(5)]
    films = write(tmp_path / "films.jsonl", rows)
    options = {"state_only": films, "state_only_columns": "{state: states, episode: film}", "stream_batches": 2}
    made = findings(["--config", config, *(f"--data.init_args.{name}={value}" for name, value in options.items())], capsys)
    assert "state_only are the first 15 pairs of the stream" in " ".join(made["notes"])
    assert made["splits"]["state_only"]["transitions"] == 15


def data_path(config):
    return yaml.safe_load(config.read_text())["data"]["init_args"]["path"]


def columns(config):
    return yaml.safe_load(config.read_text())["data"]["init_args"]["columns"]


def test_pictures(tmp_path, capsys):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    pil = pytest.importorskip("PIL.Image")

    def png(shade):
        out = io.BytesIO()
        pil.new("RGB", (8, 8), (shade, 0, 0)).save(out, "PNG")
        return out.getvalue()

    rows = [{"before": png(20 * n), "after": png(20 * n + 10), "edit": f"redden by {n}"} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "edits.parquet")
    strip = tmp_path / "shown" / "strip.png"
    made = findings([tmp_path / "edits.parquet", "--pictures", strip], capsys)
    assert made["pictures"] == str(strip)
    assert made["columns"] == {"state": "before", "next_state": "after", "action": "edit", "episode": None}
    assert pil.open(strip).size[0] > 256


def test_messages_name_the_options_of_this_command(house, tmp_path, capsys):
    assert main(["inspect", str(house), "--columns", "{state: seen}"]) == 1
    said = capsys.readouterr().err
    assert "column 'seen' (field 'state') is missing" in said
    assert "--columns '{state: YOUR_COLUMN}'" in said
    assert "data." not in said.partition("\n(SWIRL_DEBUG")[0].replace(str(tmp_path), "")
    assert main(["inspect", str(tmp_path / "nothing.jsonl")]) == 1
    assert "matches no file" in capsys.readouterr().err


def test_a_part_of_much(house, capsys):
    made = findings([house, "--rows", "40"], capsys)
    assert made["sampled"]
    assert max(split["looked_at"] for split in made["splits"].values()) <= 40
