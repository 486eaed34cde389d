"""Every YAML of howto/own-data.md reads a file of its shape, with the counts that the file implies, and trains."""

import io
import json
import re
from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml

from swirl_lightning.cli import main
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.types import Transition
from tests.data import household

PAGE = Path(__file__).parents[2] / "howto" / "own-data.md"
BLOCKS = dict(re.findall(r"^### ([^\n]+)\n```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
OTHERS = {
    "a_pairs.jsonl": ["a_pairs.jsonl.gz", "a_pairs_array.json", "d_pairs.csv"],
    "c_struct.parquet": ["c_jsontext.parquet", "c_int_action.parquet"],
}
LABELLED_ALONE = [name for name in BLOCKS if name.startswith(("a_", "b_", "c_"))]
STATE_ONLY = [name for name in BLOCKS if name.startswith("f_")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    household.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def module(block, **changes):
    """The data module of a YAML, as the command line makes it."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TransitionDataModule, "data")
    options = {**yaml.safe_load(block)["data"]["init_args"], **changes}
    return parser.instantiate(parser.parse_object({"data": options})).data


def test_the_page_names_every_shape():
    assert len(LABELLED_ALONE) == 8
    assert len(STATE_ONLY) == 3
    assert len([name for name in BLOCKS if name.startswith("hub: ")]) >= 10


@pytest.mark.parametrize("name", [*LABELLED_ALONE, *(other for names in OTHERS.values() for other in names)])
def test_labelled_files_give_what_they_hold(folder, name):
    block = next((block for block, others in OTHERS.items() if name in others), name)
    made = module(BLOCKS[block], path=name, val_fraction=0.0, test_fraction=0.0, labelled_fraction=1.0)
    made.setup("init")
    nulls = household.EPISODES if name == "a_rows_null.jsonl" else 0  # the first step of each episode
    assert (len(made.labelled), len(made.unlabelled)) == (household.TRANSITIONS - nulls, nulls)
    first = min(made.labelled, key=lambda t: (t.episode, t.step))
    assert first.step == (1 if nulls else 0)
    if name == "b_messages_tools.jsonl":
        assert first.state == "Tidy up."
        assert json.loads(first.action) == {"name": "go", "arguments": {"to": "fridge 1"}}
    elif name.startswith("c_") and name != "c_int_action.parquet":
        assert json.loads(first.state) == {"place": "drawer", "hand": None}
    else:
        assert first.state == household.states(0)[first.step]
    if name == "c_int_action.parquet":
        assert sorted(int(t.action) for t in made.labelled) == list(range(household.TRANSITIONS))


@pytest.mark.parametrize("name", STATE_ONLY)
def test_state_only_files_stand_beside_all_labels(folder, name):
    made = module(BLOCKS[name], val_fraction=0.0, test_fraction=0.0)
    made.setup("init")
    assert len(made.labelled) == household.TRANSITIONS
    pairs = {made._pairs[number] for number in range(household.TRANSITIONS)}
    assert {(p.state, p.next_state) for p in pairs} == {
        (before, after) for number in range(household.EPISODES) for before, _, after in household.transitions(number, 1)
    }
    assert not any(isinstance(pair, Transition) for pair in pairs)


def test_init_takes_the_same_mapping(folder):
    options = yaml.safe_load(BLOCKS["f_states_only.jsonl"])["data"]["init_args"]
    arguments = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]
    arguments[0] = arguments[0].replace("--path", "--data")
    assert main(["init", *arguments, "--out", "model", "--vocab_size=300", "--layers=1", "--hidden_size=16"]) == 0
    assert (folder / "model" / "tokenizer.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LABELLED_ALONE, *(other for names in OTHERS.values() for other in names), *STATE_ONLY])
def test_a_first_try_trains(folder, name):
    """Three steps of each phase, with a smaller model than the page's."""
    (folder / "own.yaml").write_text(BLOCKS["own.yaml"])
    block = next((block for block, others in OTHERS.items() if name in others), name)
    (folder / "data.yaml").write_text(BLOCKS[block])
    small = {"base.hidden_size": 16, "base.layers": 1}
    options = [f"--model.world_model.{name}={value}" for name, value in small.items()]
    options += [f"--data.init_args.{name}={size}" for name, size in {"warmup_batch_size": 4, "batch_size": 2}.items()]
    options += [f"--data.init_args.{split}_fraction=0" for split in ("val", "test")]
    options += ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    options += [f"--data.init_args.path={name}"] * (name != block)
    assert main(["fit", "--config", "own.yaml", "--config", "data.yaml", *options]) == 0
    states = torch.load(folder / "runs" / "own" / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    assert states["global_step"] == 9


def test_videos_and_labelled_pictures(tmp_path, monkeypatch):
    pytest.importorskip("av")
    image = pytest.importorskip("PIL.Image")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    from tests.environments.test_video import moving, write

    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    write(tmp_path / "videos" / "walk.mp4", moving(7))
    out = io.BytesIO()
    image.new("RGB", (64, 64)).save(out, format="PNG")
    rows = {"state": [out.getvalue()] * 4, "next_state": [out.getvalue()] * 4, "action": ["go"] * 4, "episode": list("abcd")}
    pq.write_table(pa.table(rows), tmp_path / "labelled.parquet")
    made = module(BLOCKS["videos"], val_fraction=0.0, test_fraction=0.0)
    made.setup("init")
    assert (len(made.labelled), len(made.unlabelled)) == (4, 2)
