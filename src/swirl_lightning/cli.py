"""The ``swirl`` command: LightningCLI for fit, validate, test and predict, and a few commands of its own."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from swirl_lightning.commands import COMMANDS, TRAINER_COMMANDS, help_pages
from swirl_lightning.distributed.parent import watch_parent


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``swirl``. A mistake of the user ends in one message; ``SWIRL_DEBUG=1`` shows the traceback instead.

    Args:
        argv: arguments without the program's name; default: the process's.

    Returns:
        Exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:  # ImportError: a missing extra, named
        if os.environ.get("SWIRL_DEBUG") == "1":
            raise
        return _say(error, arguments)


def _say(error: Exception, arguments: Sequence[str]) -> int:
    """Prints a mistake where a user reads it; returns the exit status."""
    from swirl_lightning.commands.overlays import place_of
    from swirl_lightning.commands.parsing import UsageError

    if isinstance(error, UsageError):
        place = error.key and place_of(arguments, error.key, error.word)
        print(f"swirl: error: {f'{place}: ' if place else ''}{error}", file=sys.stderr)
        return 2
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "; the disk is full: free some room and run the command again (fit with --ckpt_path last)" if full else ""
    lines = str(error).strip().splitlines()
    told = "\n".join(lines) if len(lines) <= 2 else " ".join(" ".join(lines).split())  # a library's page, in one line
    print(f"swirl: error: {told}{hint}\n(SWIRL_DEBUG=1 shows where it comes from)", file=sys.stderr)
    return 1


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"swirl-lightning {version('swirl-lightning')}")
        return 0
    if arguments[1:] in (["-h"], ["--help"]) and (page := help_pages.page(arguments[0])) is not None:
        print(page, end="")
        raise SystemExit(0)  # as parsers do
    if arguments[1:] == ["--help=all"]:
        arguments = [arguments[0], "--help"]
    from swirl_lightning.commands.overlays import with_overlays

    arguments = with_overlays(arguments)
    if arguments[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[arguments[0]][0])
        return int(module.main(arguments[1:]))
    if arguments[0] not in TRAINER_COMMANDS:
        from swirl_lightning.hints import did_you_mean

        hint = did_you_mean(arguments[0], [*TRAINER_COMMANDS, *COMMANDS], listed=False) or "; swirl --help lists them"
        print(f"swirl: error: there is no command {arguments[0]!r}{hint}", file=sys.stderr)
        return 2
    watch_parent()  # before seconds of imports, in which it may end
    importlib.import_module("swirl_lightning.fit").run_trainer(arguments)
    return 0


def _help() -> str:
    rows = {**TRAINER_COMMANDS, **{name: text for name, (_, text) in COMMANDS.items()}}
    width = max(map(len, rows))
    lines = [f"  {name:<{width}}  {text}" for name, text in rows.items()]
    return "\n".join(
        [
            "usage: swirl COMMAND [options]",
            "",
            "World models from state-only data (SWIRL, arXiv:2602.06130).",
            "",
            *lines,
            "",
            "swirl COMMAND --help shows a command's options; swirl fit --config FILE --print_config what a run would use.",
        ]
    )
