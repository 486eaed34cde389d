"""Every shipped YAML file is accepted by the command in its first line."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from swirl_lightning.cli import COMMANDS, TRAINER_COMMANDS, main

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.y*ml"))


def launch(file):
    """The launch command in the first line, as arguments of ``main``."""
    first = file.read_text().splitlines()[0]
    found = re.fullmatch(r"# swirl (.+)", first)
    assert found, f"{file}: the first line must be a comment with the launch command, got {first!r}"
    return shlex.split(found[1])


def print_config(arguments):
    """What ``--print_config`` prints; fails with the command's own message."""
    shown, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as stopped:
        main([*arguments, "--print_config"])
    assert stopped.value.code in (0, None), f"{arguments}: {said.getvalue()}"
    return shown.getvalue()


def test_there_are_configurations():
    assert FILES
    assert {launch(file)[0] for file in FILES} >= {"fit", "codec", "study"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_configuration_parses(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = launch(file)
    assert arguments[0] in {*COMMANDS, *TRAINER_COMMANDS}
    named = [argument for argument in arguments if argument.endswith((".yaml", ".yml"))]
    assert file.relative_to(ROOT).as_posix() in named, f"{file}: its launch command does not name it"
    assert all((ROOT / name).is_file() for name in named)
    printed = yaml.safe_load(print_config(arguments))
    assert set(yaml.safe_load(file.read_text())) - {"defaults"} <= set(printed)
    assert "defaults" not in printed


@pytest.mark.parametrize("file", [f for f in FILES if launch(f)[0] == "study"], ids=lambda file: file.name)
def test_overrides_of_a_study_are_options_of_fit(file, monkeypatch):
    """A study passes its overrides to ``swirl fit``; a misspelt one must not wait for its turn to be found."""
    from swirl_lightning.commands.study import Method, Study, _as_argument

    monkeypatch.chdir(ROOT)
    parser = ArgumentParser()
    parser.add_class_arguments(Study, None)
    settings = parser.parse_object(yaml.safe_load(file.read_text())).as_dict()
    study = Study(**{**settings, "methods": [Method(**method) for method in settings["methods"]]})
    assert study.methods
    for method in (None, *study.methods):
        options = [f"--{key}={_as_argument(value)}" for key, value in study._options(study.seeds[0], method).items()]
        more = [] if method is None or method.config is None else ["--config", str(method.config)]
        print_config(["fit", "--config", str(study.base), *more, *options])


@pytest.mark.parametrize("command", [*TRAINER_COMMANDS, *(command for command in COMMANDS if command != "compare")])
def test_help_is_readable(command, capsys):
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert "usage:" in shown
    assert command in shown


def test_help_of_swirl_names_every_command(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in (*COMMANDS, *TRAINER_COMMANDS))
