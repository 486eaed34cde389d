"""``swirl completion``: a script for a shell, made from the parsers of all commands."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from swirl_lightning.commands.help_pages import commands, first_words, parser_of
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.hints import require

_PLACES = """keep what it prints in ~/.bash_completion, in a file _swirl in a folder of zsh's fpath, or in
~/.config/fish/completions/swirl.fish"""


def script(shell: str) -> str:
    """A script that completes commands, options, their choices, and files.

    Args:
        shell: bash, zsh or fish.

    Raises:
        ImportError: if shtab is not installed.
    """
    from swirl_lightning.internals import options_of

    shtab = require("shtab", "completion")
    whole = ArgumentParser(prog="swirl")
    below = whole.add_subparsers()
    for command, (module, about) in commands().items():
        own = below.add_parser(command, help=about)
        for option in options_of(parser_of(command, module)):
            if option.option_strings and option.dest != "help":
                text, choices = first_words(option.help, 60).replace("%", "%%"), option.choices
                named = list(choices) if isinstance(choices, Sequence) else None
                own.add_argument(*option.option_strings, help=text, choices=named).complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(whole, shell))


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = Parser(prog="swirl completion", description=f"Print a script that completes commands and options; {_PLACES}.")
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    print(script(parser.parse_args(list(argv)).shell))
    return 0
