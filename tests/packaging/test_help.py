"""Help is there at once, says what the parsers say, and a shell completes it."""

import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

from swirl_lightning.cli import main
from swirl_lightning.commands import completion, help_pages
from swirl_lightning.commands.completion import script
from swirl_lightning.commands.help_pages import commands, made, page

COMMANDS = commands()
QUICK = """
import contextlib, sys
from swirl_lightning.cli import main
for command in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
main(["--help"])
heavy = {"torch", "lightning", "transformers", "torchmetrics", "datasets", "numpy", "jsonargparse", "bitsandbytes"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_help_waits_for_no_import():
    done = subprocess.run([sys.executable, "-c", QUICK, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage:") == len(COMMANDS) + 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_is_what_the_parser_says(command):
    assert page(command) == made(command, *COMMANDS[command]), "make pages writes it anew"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_the_keys_that_people_set_fit_on_a_screen(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 55
    assert max(map(len, lines)) <= 140
    assert any("--model.fwm.group_size" in line and " 16 " in line for line in lines)


def test_all_keys_are_shown_when_asked_for(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help=all"])
    assert stopped.value.code == 0
    assert "--trainer.num_sanity_val_steps" in capsys.readouterr().out


def test_the_commands_stand_in_columns(capsys):
    assert main(["--help"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(rows) == len(COMMANDS)
    starts = {len(line) - len(line[2:].partition(" ")[2].lstrip()) for line in rows}
    assert len(starts) == 1


def test_the_version_is_said(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"swirl-lightning {version('swirl-lightning')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell, monkeypatch, tmp_path):
    pytest.importorskip("shtab")
    few = {name: COMMANDS[name] for name in ("export", "score", "init")}
    monkeypatch.setattr(completion, "commands", lambda: few)
    text = script(shell)
    assert "hidden_size" in text
    assert "export" in text
    if shell == "bash" and shutil.which("bash"):
        (tmp_path / "swirl.bash").write_text(text)
        ask = f"source {tmp_path}/swirl.bash; COMP_WORDS=(swirl init --hid); COMP_CWORD=2; _shtab_swirl; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
        assert "--hidden_size" in done.stdout, done.stderr


def test_every_command_has_a_page():
    assert {file.stem for file in help_pages.FOLDER.glob("*.txt")} == set(COMMANDS)
