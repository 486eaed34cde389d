"""What people get wrong, and what they read then: one message of at most three lines that names the place and the cure."""

import time
from pathlib import Path

import pytest

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
    "a class without its module": ({"data__class_path": "nowhere.MyData"}, "'nowhere.MyData'", "PYTHONPATH"),
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
    "data without a path": ({"data": {"class_path": "TransitionDataModule"}}, "path must be given", "TransitionDataModule"),
}

COMMANDS = {  # what is wrong: (arguments, what must be said)
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


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_wrong_configuration(case, config, said):
    changes, *words = CONFIGURATIONS[case]
    message = said(config(**changes))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("case", COMMANDS)
def test_wrong_command(case, said):
    arguments, *words = COMMANDS[case]
    message = said(arguments)
    assert all(word in message for word in words), message


def test_the_line_is_that_of_the_file_that_says_it(config, said, tmp_path):
    base = config(model__fwm__group_sise=4)[-1]
    above = tmp_path / "above.yaml"
    above.write_text(f"defaults: {base}\nrun_dir: {tmp_path}\n")
    where = 1 + next(n for n, line in enumerate(Path(base).read_text().splitlines()) if "group_sise" in line)
    assert said(["fit", "--config", str(above)]).startswith(f"{base}, line {where}: model.fwm.group_sise")
    assert ".yaml" not in said([*config(), "--model.fwm.group_sise=4"])  # typed


def test_all_that_jsonargparse_says_is_there_when_asked_for(config, monkeypatch):
    from swirl_lightning.cli import main

    monkeypatch.setenv("SWIRL_DEBUG", "1")
    with pytest.raises(ValueError, match="group_sise") as caught:
        main(config(model__fwm__group_sise=4))
    assert "Subcommand 'fit' does not accept option" in caught.value.__notes__[0]
