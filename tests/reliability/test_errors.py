"""Every mistake that a user can make is refused before training starts, in one message that names what and where."""

import json
import shutil

import pytest

from swirl_lightning.cli import main

ROW = {"state": "agent 1 2 west", "next_state": "agent 1 2 north", "action": "turn left", "episode": "e0", "step": 0}


def jsonl(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def nothing_was_trained(run):
    return not list(run.rglob("*.ckpt")) and not (run / "metrics.jsonl").exists()


@pytest.fixture
def refused(config, complaint, tmp_path):
    """A function that runs ``swirl fit`` with changed settings, checks that nothing was trained, and gives the message."""

    def run(**changes):
        said = complaint(config(**changes))
        assert nothing_was_trained(tmp_path / "run")
        assert len(said.splitlines()) <= 6, f"too much to read:\n{said}"
        return said

    return run


# ---------------------------------------------------------------------- configuration


def test_unknown_key(refused):
    said = refused(model__fwm__group_sise=4)
    assert "group_sise" in said


def test_unknown_top_level_key(refused):
    assert "modle" in refused(modle={"a": 1})


def test_configuration_file_is_missing(complaint):
    assert "nowhere.yaml" in complaint(["fit", "--config", "nowhere.yaml"])


@pytest.mark.parametrize(("content", "place"), [(b"model: [1,\n", "line 2"), (b"run_dir: \xff\n", "0xff")])
@pytest.mark.parametrize("option", [["--config", "{}"], ["--config={}"]])
def test_configuration_that_is_not_yaml(complaint, tmp_path, option, content, place):
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    for command in ("fit", "study"):
        said = complaint([command, *(part.format(file) for part in option)])
        assert f"{file} is not YAML: " in said
        assert place in said


def test_unknown_command(complaint):
    assert "fitt" in complaint(["fitt"])


def test_group_of_one(refused):
    said = refused(model__fwm__group_size=1)
    assert "group_size must be at least 2, got 1" in said


def test_nll_weight_of_the_idm(refused):
    assert "idm.nll_weight" in refused(model__idm__nll_weight=1.0)


def test_replay_weight_without_replayed_data(refused):
    said = refused(model__fwm__replay_weight=0.5)
    assert "fwm.replay_weight" in said
    assert "replay_batch_size" in said


def test_no_room_for_a_completion(refused):
    said = refused(model__max_prompt_tokens=150)
    assert "max_prompt_tokens=150 leaves no room for a completion" in said
    assert "fwm.sampling.max_new_tokens=" in said
    assert "160 positions" in said


def test_wording_fills_the_prompt(refused):
    said = refused(model__max_prompt_tokens=8)
    assert "fixed text" in said
    assert "max_prompt_tokens is 8" in said


def test_wording_without_its_slot(refused):
    said = refused(model__prompts__fwm=["{state} and then?"])
    assert "prompts.fwm: slot {action} is missing" in said


# ---------------------------------------------------------------------- data


def test_data_are_missing(refused, tmp_path):
    said = refused(data__init_args__path=str(tmp_path / "nothing.parquet"))
    assert "data.path" in said
    assert "nothing.parquet" in said


def test_malformed_line(refused, tmp_path):
    path = jsonl(tmp_path / "broken.jsonl", [ROW, '{"state": "agent'])
    assert f"{path}, line 2: malformed JSON" in refused(data__init_args__path=path)


def test_missing_column(refused, tmp_path):
    path = jsonl(tmp_path / "columns.jsonl", [{k: v for k, v in ROW.items() if k != "next_state"}])
    said = refused(data__init_args__path=path)
    assert f"{path}: column 'next_state'" in said
    assert "data.columns" in said


def test_episode_in_two_splits(refused, tmp_path):
    rows = [{**ROW, "step": i, "split": split} for i, split in enumerate(("train", "test"))]
    path = jsonl(tmp_path / "leak.jsonl", rows)
    said = refused(data__init_args__path=path)
    assert f"{path}, line 2" in said
    assert "'e0' is in two splits, train and test" in said


def test_empty_split(refused, tmp_path):
    rows = [{**ROW, "episode": f"e{i}", "split": "train"} for i in range(4)]
    said = refused(data__init_args__path=jsonl(tmp_path / "train.jsonl", rows))
    assert "the val split of" in said
    assert "is empty" in said


def test_nothing_left_unlabelled(refused):
    said = refused(data__init_args__labelled_fraction=1.0)
    assert "the unlabelled split of" in said
    assert "labelled_fraction" in said


# ---------------------------------------------------------------------- models and tokenizers


@pytest.fixture
def model_folder(world, tmp_path):
    """A copy of the untrained model's folder."""
    return shutil.copytree(world / "model", tmp_path / "model")


def edit(path, **fields):
    content = json.loads(path.read_text())
    content.update(fields)
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_tokenizer_without_an_end_token(refused, model_folder):
    edit(model_folder / "tokenizer_config.json", eos_token=None)
    said = refused(model__world_model__base=str(model_folder))
    assert "end" in said or "eos" in said
    assert "tokenizer" in said


def test_tokenizer_larger_than_the_model(refused, model_folder):
    edit(model_folder / "config.json", vocab_size=200)
    said = refused(model__world_model__base=str(model_folder))
    assert "200 embeddings" in said
    assert "tokenizer" in said


def test_adapter_layers_that_do_not_exist(refused):
    settings = {"storage": "adapters", "lora": {"target_modules": ["q_projection"]}}
    said = refused(**{f"model__world_model__{name}": value for name, value in settings.items()})
    assert "world_model.lora.target_modules=['q_projection'] does not fit" in said


def test_base_folder_is_missing(refused, tmp_path):
    said = refused(model__world_model__base=str(tmp_path / "no_model"))
    assert "world_model.base" in said
    assert "no_model" in said


def test_base_holds_pickled_weights_only(refused, model_folder):
    (model_folder / "pytorch_model.bin").write_bytes(b"pickle")
    said = refused(model__world_model__base=str(model_folder))
    assert "pickled weights only" in said


def test_base_is_an_adapter(refused, model_folder):
    (model_folder / "config.json").unlink()
    (model_folder / "adapter_config.json").write_text("{}")
    said = refused(model__world_model__base=str(model_folder))
    assert "LoRA adapter: give its base model" in said


def test_an_idm_of_its_own_that_the_warmup_would_overwrite(refused, model_folder):
    said = refused(model__world_model__idm_base=str(model_folder))
    assert "idm_base" in said
    assert "would be overwritten" in said


def test_roles_of_different_shape_share_no_reference(refused, model_folder):
    edit(model_folder / "config.json", hidden_size=16)
    said = refused(model__world_model__idm_base=str(model_folder), model__warmup="each")
    assert "world_model.idm_base" in said
    assert "model.embed_tokens.weight ((300, 16) and (300, 32))" in said


def test_a_good_run_warns_of_nothing(config, recwarn):
    assert main(config(trainer__callbacks=[])) == 0
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)] == []


def test_the_traceback_is_there_when_asked_for(config, monkeypatch):
    monkeypatch.setenv("SWIRL_DEBUG", "1")
    with pytest.raises(ValueError, match="group_size must be at least 2"):
        main(config(model__fwm__group_size=1))
