"""What people get wrong, and what they read then: one message of at most three lines that names the place and the cure."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from swirl_lightning.cli import main

CALLBACKS, OPTIMIZER = "trainer__callbacks", "model__fwm_optimizer"

CONFIGURATIONS = {  # what is wrong: (changes of a good configuration, what must be said)
    "an option misspelt": ({"model__fwm__group_sise": 4}, "config.yaml, line ", "model.fwm.group_sise", "'group_size'"),
    "a group misspelt": ({"modle": {"a": 1}}, "config.yaml, line ", "modle is no option", "'model'"),
    "a nested option misspelt": ({"model__fwm__sampling__max_new_token": 4}, "line ", "max_new_token is", "'max_new_tokens'"),
    "an option of Lightning misspelt": ({"trainer__acelerator": "cpu"}, "line ", "trainer.acelerator", "'accelerator'"),
    "an option at another place": ({"trainer__group_size": 4}, "trainer.group_size", "model.fwm.group_size or model.idm.group"),
    "an option of the data misspelt": (
        {"data__init_args__pth": "x"},
        "line ",
        "init_args.pth",
        "TransitionDataModule",
        "'path'",
    ),
    "a field of a new model misspelt": ({"model__world_model__base": {"hidden_sise": 8}}, "hidden_sise", "'hidden_size'"),
    "an option of a callback misspelt": (
        {CALLBACKS: [{"class_path": "BenchmarkEvaluation", "init_args": {"bestof": [2]}}]},
        *("line ", "bestof is no option of BenchmarkEvaluation", "'best_of'"),
    ),
    "an option of a reward misspelt": (
        {"model__fwm__rewards": [{"reward": {"class_path": "JudgeLogprob", "init_args": {"redcue": "sum"}}}]},
        *("line ", "redcue is no option of JudgeLogprob", "'reduce'"),
    ),
    "a name that torch does not use": (
        {OPTIMIZER: {"class_path": "torch.optim.AdamW", "init_args": {"learning_rate": 0.1}}},
        *("line ", "learning_rate is no option of AdamW", "lr"),
    ),
    "a class misspelt": ({"data__class_path": "MinigridDataModule"}, "line ", "'MinigridDataModule'", "'MiniGridDataModule'"),
    "a class misspelt in its module": ({"data__class_path": "swirl_lightning.data.TransitionData"}, "'TransitionDataModule'"),
    "a class without its module": ({"data__class_path": "no_such_place.MyData"}, "'no_such_place.MyData'", "PYTHONPATH"),
    "a reward that is not on the path": (
        {"model__fwm__rewards": [{"reward": "my_reward.NewPlace"}]},
        *("rewards", "No module named 'my_reward'; modules are found on PYTHONPATH"),
    ),
    "a callback misspelt": ({CALLBACKS: ["ExportModls"]}, "line ", "'ExportModls'", "'ExportModels'"),
    "an optimizer misspelt": ({OPTIMIZER: {"class_path": "AdamWW"}}, "line ", "'AdamWW'", "'AdamW'"),
    "a schedule misspelt": ({"model__lr_scheduler": {"class_path": "PhasLR"}}, "'PhasLR'", "'PhaseLR'"),
    "an engine misspelt": ({"model__engine": {"class_path": "VlmEngine"}}, "'VlmEngine'", "'VllmEngine'"),
    "a logger misspelt": ({"trainer__logger": {"class_path": "CSVLoger"}}, "'CSVLoger'", "'CSVLogger'"),
    "a choice misspelt": ({"model__warmup": "jont"}, "line ", "model.warmup must be one of joint, each", "'joint'"),
    "a storage misspelt": ({"model__world_model__storage": "adapter"}, "separate, shared, adapters", "'adapters'"),
    "a precision misspelt": ({"trainer__precision": "bf16-mix"}, "trainer.precision", "'bf16-mixed'"),
    "text for a number": ({"model__fwm__group_size": "four"}, "line ", "group_size must be a whole number, got 'four'"),
    "a fraction for a number": ({"model__schedule__warmup_epochs": 1.5}, "warmup_epochs must be a whole number, got '1.5'"),
    "text for a temperature": ({"model__fwm__sampling__temperature": "hot"}, "temperature must be a number, got 'hot'"),
    "text for a number of the data": ({"data__init_args__batch_size": "many"}, "batch_size must be a whole number", "'many'"),
    "a list for columns": ({"data__init_args__columns": ["a", "b"]}, "columns must be names with values"),
    "a value for a group": ({"model": "x"}, "model must hold options by name, got 'x'"),
    "a list for a group": ({"trainer": [1]}, "trainer must hold options by name"),
    "accumulation": ({"trainer__accumulate_grad_batches": 4}, "line ", "data.batch_size", "model.token_budget"),
    "clipping": ({"trainer__gradient_clip_val": 1.0}, "line ", "trainer.gradient_clip_val", "model.gradient_clip"),
    "weight averaging": (
        {CALLBACKS: [{"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1}}]},
        *("line ", "StochasticWeightAveraging", "model.guard"),
    ),
    "half precision": ({"trainer__precision": "16-mixed"}, "trainer.precision 16-mixed", "bf16-mixed"),
    "a strategy misspelt": ({"trainer__strategy": "fdsp"}, "line ", "trainer.strategy", "'fsdp'"),
    "no GPU": ({"trainer__accelerator": "gpu"}, "line ", "no GPU", "auto or cpu"),
    "devices that are none": ({"trainer__devices": "two"}, "trainer", "devices"),
    "a logger that is not installed": (
        {"trainer__logger": {"class_path": "lightning.pytorch.loggers.CometLogger"}},
        *("CometLogger", "pip install"),
    ),
    "a batch of none": ({"data__init_args__batch_size": 0}, "data.batch_size must be at least 1, got 0"),
    "a stride of none": ({"data__init_args__stride": 0}, "data.stride must be at least 1"),
    "a fraction above one": ({"data__init_args__labelled_fraction": 2}, "data.labelled_fraction must lie in [0, 1], got 2.0"),
    "a pattern that is none": ({"data__init_args__action_pattern": "("}, "data.action_pattern '('", "no regular expression"),
    "a field misspelt": ({"data__init_args__columns": {"next_stat": "x"}}, "no field 'next_stat'", "'next_state'"),
    "a column that is not there": ({"data__init_args__columns": {"state": "x"}}, "column 'x'", "there are: action", "columns"),
    "one column for both states": (
        {"data__init_args__columns": {"next_state": "state"}},
        "state and next_state are one column",
    ),
    "a world that is not installed": (
        {"data": {"class_path": "ScienceWorldDataModule", "init_args": {"path": "{tmp}/s"}}},
        *('pip install "swirl-lightning[scienceworld]"',),
    ),
    "a model misspelt": ({"model__world_model__base": "{model}s"}, "world_model.base: there is no folder", "{model}"),
    "a model that is nowhere": ({"model__world_model__base": "modle"}, "no folder 'modle'", "owner/name", "swirl init"),
    "a hub name without a hub": ({"model__world_model__base": "own/modle"}, "'own/modle' is no folder here", "hub"),
    "a file for a model": ({"model__world_model__base": "{data}/manifest.json"}, "there is no folder"),
    "a folder that holds no model": ({"model__world_model__base": "{data}"}, "has no config.json"),
    "a tokenizer misspelt": ({"model__tokenizer": "tokenzier"}, "model.tokenizer: there is no folder 'tokenzier'"),
    "an IDM misspelt": ({"model__world_model__idm_base": "idm", "model__warmup": "each"}, "world_model.idm_base", "'idm'"),
    "an architecture misspelt": ({"model__world_model__base": {"model_type": "lama"}}, "model_type", "'llama'"),
    "sizes that do not divide": ({"model__world_model__base": {"hidden_size": 30, "heads": 4}}, "30", "heads 4", "32"),
    "a vocabulary too small": ({"model__world_model__base": {"vocab_size": 3}}, "vocab_size must be at least 259"),
    "a phase misspelt": ({"model__schedule__order": ["fvm"]}, "schedule.order", "'fvm'", "fwm, idm, pseudo"),
    "a group of one": ({"model__fwm__group_size": 1}, "group_size must be at least 2, got 1"),
    "a temperature below zero": ({"model__fwm__sampling__temperature": -1.0}, "temperature", "-1"),
    "a probability above one": ({"model__fwm__sampling__top_p": 2.0}, "top_p", "2"),
    "an unknown role": ({"model__warmup_until": {"idn": 0.9}}, "warmup_until", "idn"),
    "per cent for a share": ({"model__warmup_until": {"idm": 97}}, "warmup_until", "97"),
    "a wording without its slot": ({"model__prompts__fwm": ["{state}?"]}, "prompts.fwm", "{action}"),
    "a split misspelt": ({CALLBACKS: [{"class_path": "BenchmarkEvaluation", "init_args": {"splits": ["tset"]}}]}, "'tset'"),
    "best of N without sampling": (
        {CALLBACKS: [{"class_path": "BenchmarkEvaluation", "init_args": {"best_of": [2], "sampled": False}}]},
        *("BenchmarkEvaluation.best_of", "sampled: true"),
    ),
    "a regular expression that is none": ({"model__idm__constraint": {"regex": "("}}, "unclosed group"),
    "a run folder that is a file": ({"run_dir": "{data}/manifest.json"}, "{data}/manifest.json"),
    "data without a path": ({"data": {"class_path": "TransitionDataModule"}}, "path must be given", "TransitionDataModule"),
}

COMMANDS = {  # what is wrong: (arguments, what must be said)
    "a checkpoint that is not there": (["{fit}", "--ckpt_path={tmp}/lost.ckpt"], "no checkpoint", "lost.ckpt"),
    "a run for a checkpoint": (["{fit}", "--ckpt_path={trained}"], "no checkpoint", "{trained}/checkpoints/last.ckpt"),
    "the best checkpoint": (["{fit}", "--ckpt_path=best"], "ckpt_path", "last"),
    "a checkpoint that is none": (
        ["{fit}", "--ckpt_path={data}/manifest.json"],
        "manifest.json",
        "is no checkpoint",
    ),
    "another storage on resume": (
        ["{fit}", "--ckpt_path={trained}/checkpoints/last.ckpt", "--model.world_model.storage=adapters"],
        *("model.world_model.storage=separate", "this run adapters", "set it to separate"),
    ),
    "another model on resume": (
        ["{fit}", "--ckpt_path={trained}/checkpoints/last.ckpt", "--model.world_model.base={wide}"],
        *("another model than model.world_model.base", "(300, 64)"),
    ),
    "nothing to validate": (["validate", "--config={config}"], "last.ckpt does not exist", "--ckpt_path"),
    "nothing to test": (["test", "--config={config}"], "last.ckpt does not exist", "--run_dir"),
    "nothing to predict with": (["predict", "--config={config}"], "last.ckpt does not exist", "--run_dir"),
    "sizes of init": (["init", "--data={data}", "--out={tmp}/m", "--heads=3"], "hidden_size 128", "heads 3", "129"),
    "no layers": (["init", "--data={data}", "--out={tmp}/m", "--layers=0"], "layers must be at least 1"),
    "an architecture of init": (["init", "--data={data}", "--out={tmp}/m", "--model_type=qwen"], "'qwen'", "'qwen"),
    "init over a model": (["init", "--data={data}", "--out={model}"], "{model} exists already", "--overwrite"),
    "init without data": (["init", "--data={tmp}/none", "--out={tmp}/m"], "--data", "matches no file"),
    "init without its place": (["init", "--data={data}"], "--out must be given"),
    "an option of init": (["init", "--data={data}", "--out={tmp}/m", "--hiden_size=8"], "hiden_size", "'hidden_size'"),
    "export of no run": (["export", "{data}", "{tmp}/e"], "config.yaml is missing", "swirl fit"),
    "export of no checkpoint": (["export", "{trained}", "{tmp}/e", "--checkpoint=x.ckpt"], "no checkpoint x.ckpt"),
    "export of no adapters": (["export", "{trained}", "{tmp}/e", "--adapter_only=true"], "'separate' has no adapters"),
    "export to nowhere": (["export", "{trained}"], "out must be given"),
    "scores of no file": (["score", "text", "{tmp}/none.jsonl"], "none.jsonl", "o such file"),
    "scores of an unknown kind": (["score", "txt", "{tmp}/none.jsonl"], "text, tools, web, images", "'text'"),
    "scores of no predictions": (["score", "text", "{config}"], "{config}, line 1", "JSON"),
    "comparison of no run": (["compare", "[{tmp}]"], "metrics.jsonl is missing"),
    "a study without anything": (["study"], "--base, --out and --methods must be given"),
    "labels by no export": (["label", "{data}", "{model}", "{tmp}/l.jsonl", "--actions=all"], "swirl.json", "swirl export"),
    "a forecast by no export": (["forecast", "{data}", "{model}", "{tmp}/f.jsonl"], "swirl.json", "swirl export"),
    "imagination without actions": (["imagine", "--fwm={model}"], "--actions", "--demonstration"),
    "a look at nothing": (["inspect", "{tmp}/none.jsonl"], "none.jsonl", "matches no file"),
    "a look without a file": (["inspect"], "file must be given"),
    "a world misspelt": (["record", "minigird", "--out={tmp}/r"], "'minigird'", "'minigrid'"),
    "an option of a world": (["record", "doorkey", "--out={tmp}/r", "--env.n_episods=3"], "env.n_episods", "'n_episodes'"),
    "a recorder that is nowhere": (["record", "own:World", "--out={tmp}/r"], "own:World", "PYTHONPATH"),
    "a conversion misspelt": (["convert", "ggfu"], "vqgan, gguf, data", "'gguf'"),
    "a conversion of nothing": (["convert", "gguf", "--file={tmp}/m.gguf", "--out={tmp}/g"], "no file", "m.gguf"),
    "a conversion of something else": (["convert", "gguf", "--file={config}", "--out={tmp}/g"], "is not a GGUF file"),
    "a codec without data": (["codec", "--out={tmp}/c"], "data.path must be given"),
    "an extension of no model": (["extend", "--base={model}s", "--codec=c", "--out={tmp}/x"], "no folder", "{model}"),
    "a command misspelt": (["fitt"], "'fitt'", "'fit'"),
    "a command of others": (["train"], "'train'", "swirl --help"),
    "nothing given": (["fit"], "model.world_model.base and data must be given"),
    "a flag misspelt": (["fit", "--confg", "x.yaml"], "confg", "'config'"),
    "a nested flag misspelt": (["fit", "--model.fwm.group_sise", "3"], "model.fwm.group_sise", "'group_size'"),
    "a flag without a value": (["fit", "--model.fwm.group_size"], "--model.fwm.group_size", "expected one argument"),
    "a stray word": (["fit", "quickstart"], "'quickstart'", "begin with --"),
    "no such configuration": (["fit", "--config", "configs/quickstrat.yaml"], "'configs/quickstart.yaml'"),
}


@pytest.fixture
def said(complaint):
    """A function that runs ``swirl`` with arguments that must fail, and gives what it says, which must be short and quick."""

    def run(arguments):
        began = time.process_time()
        message = complaint(arguments)
        assert time.process_time() - began < 10
        assert len(message.strip().splitlines()) <= 3, message
        return message

    return run


DATA = {  # what a data file holds: what must be said
    "empty.jsonl": (b"", "is empty"),
    "text.parquet": (b"PAR1", "not a readable Parquet file"),
    "rows.xyz": (b"x", "is no data file", "JSONL"),
    "ragged.csv": (b"state,next_state\n1,2,3\n", "row 1: 3 cells, but the header names 2"),
    "lists.jsonl": (b"[1, 2]\n", "line 1: must hold one JSON object, got list"),
    "cut.jsonl": (b'{"state": "a', "line 1: malformed JSON"),
    "latin.jsonl": (b'{"state": "\xe9", "next_state": "b"}\n', "line 1", "utf-8"),
    "cut.json": (b'[{"state": "a"}', "cut.json"),
    "unzipped.jsonl.gz": (b'{"state": "a"}\n', "unzipped.jsonl.gz", "gz"),
}

FILES = {  # what a configuration holds: what must be said
    "tabs": ("model:\n\twarmup: joint\n", "wrong.yaml is not YAML", "line 2"),
    "two colons": ("run_dir: a: b\n", "wrong.yaml is not YAML", "line 1"),
    "a list": ("- run_dir\n", "wrong.yaml", "by name"),
    "nothing": ("", "wrong.yaml", "empty"),
    "a default that is not there": ("defaults: smal.yaml\n", "defaults names 'smal.yaml'"),
    "itself": ("defaults: wrong.yaml\n", "builds on itself"),
}


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A finished warm-up."""
    run = tmp_path_factory.mktemp("trained")
    lengths = [
        "--model.max_prompt_tokens=120",
        "--model.fwm.sampling.max_new_tokens=40",
        "--model.idm.sampling.max_new_tokens=16",
    ]
    model = ["--model.world_model.base", str(world / "model"), "--model.schedule.iterations=0", *lengths]
    data = ["--data.path", str(world / "data"), "--data.max_labelled=4"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.callbacks=[]", "--trainer.limit_val_batches=0"]
    assert main(["fit", "--run_dir", str(run), *model, *data, *trainer]) == 0
    return run


@pytest.fixture
def places(world, trained, config, tmp_path):
    """A function that puts the places of the test's files into a text, a list or a mapping."""
    wide = shutil.copytree(world / "model", tmp_path / "wide")
    settings = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**settings, "hidden_size": 64}))
    own = {"data": world / "data", "model": world / "model", "trained": trained, "wide": wide, "tmp": tmp_path}
    own |= {"config": config()[-1], "fit": f"fit --config={config()[-1]}"}

    def put(value):
        if isinstance(value, str):
            return re.sub(rf"\{{({'|'.join(own)})\}}", lambda name: str(own[name[1]]), value)
        if isinstance(value, dict):
            return {key: put(inner) for key, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    return put


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_wrong_configuration(case, config, places, said):
    changes, *words = CONFIGURATIONS[case]
    message = said(config(**places(changes)))
    assert all(word in message for word in places(words)), message


@pytest.mark.parametrize("case", COMMANDS)
def test_wrong_command(case, places, said):
    arguments, *words = COMMANDS[case]
    message = said([part for argument in arguments for part in places(argument).split()])
    assert all(word in message for word in places(words)), message


@pytest.mark.parametrize("name", DATA)
def test_wrong_data(name, config, said, tmp_path):
    content, *words = DATA[name]
    (tmp_path / name).write_bytes(content)
    message = said(config(data__init_args__path=str(tmp_path / name)))
    assert all(word in message for word in (name, *words)), message


@pytest.mark.parametrize("case", FILES)
def test_wrong_file(case, said, tmp_path):
    content, *words = FILES[case]
    (tmp_path / "wrong.yaml").write_text(content)
    message = said(["fit", "--config", str(tmp_path / "wrong.yaml")])
    assert all(word in message for word in words), message


def test_the_line_is_that_of_the_file_that_says_it(config, said, tmp_path):
    base = config(model__fwm__group_sise=4)[-1]
    above = tmp_path / "above.yaml"
    above.write_text(f"defaults: {base}\nrun_dir: {tmp_path}\n")
    where = 1 + next(n for n, line in enumerate(Path(base).read_text().splitlines()) if "group_sise" in line)
    assert said(["fit", "--config", str(above)]).startswith(f"{base}, line {where}: model.fwm.group_sise")
    assert ".yaml" not in said([*config(), "--model.fwm.group_sise=4"])  # typed


def test_all_that_jsonargparse_says_is_there_when_asked_for(config, monkeypatch):
    monkeypatch.setenv("SWIRL_DEBUG", "1")
    with pytest.raises(ValueError, match="group_sise") as caught:
        main(config(model__fwm__group_sise=4))
    assert "Subcommand 'fit' does not accept option" in caught.value.__notes__[0]
