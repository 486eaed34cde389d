"""The ``swirl`` command: LightningCLI for fit, validate, test and predict, and a few commands of its own."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from swirl_lightning.distributed.parent import watch_parent

COMMANDS = {  # command: (module with main(argv), one-line help)
    "record": ("swirl_lightning.commands.record", "record transitions from a real simulator"),
    "init": ("swirl_lightning.commands.init", "make a small untrained model and tokenizer for recorded transitions"),
    "codec": ("swirl_lightning.commands.codec", "train an image codec on recorded frames"),
    "extend": ("swirl_lightning.commands.extend", "give a pretrained model ids for the codes of an image codec"),
    "inspect": ("swirl_lightning.commands.inspect", "what the models will see of some data, before anything is trained"),
    "label": ("swirl_lightning.commands.label", "write IDM actions into an unlabelled file"),
    "forecast": ("swirl_lightning.commands.forecast", "write an FWM's next states of a split, for score"),
    "imagine": ("swirl_lightning.commands.imagine", "roll a world out from a state and actions"),
    "turns": ("swirl_lightning.commands.turns", "roll episodes out on the model's own predictions, measured turn by turn"),
    "disc-edit": ("swirl_lightning.commands.disc_edit", "DiscEdit of AURORA-Bench for an FWM"),
    "world-prediction": ("swirl_lightning.commands.world_prediction", "roll WorldPrediction-Bench's plans out, for score"),
    "convert": ("swirl_lightning.commands.convert", "convert a VQGAN checkpoint (taming layout) into an image codec"),
    "export": ("swirl_lightning.commands.export", "write FWM and IDM of a run as Hugging Face folders"),
    "report": ("swirl_lightning.commands.page", "write one HTML page about a run: tables, curves, samples, pictures"),
    "compare": ("swirl_lightning.commands.compare", "put several runs into one table with intervals"),
    "score": ("swirl_lightning.commands.score", "score predictions of any model from a file"),
    "study": ("swirl_lightning.commands.study", "run the paper's comparison: methods x seeds, one report"),
}
TRAINER_COMMANDS = {
    "fit": "train: warm-up, then SWIRL phases",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split",
    "predict": "sample next states and actions",
}


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
    print(f"swirl: error: {error}{hint}\n(SWIRL_DEBUG=1 shows where it comes from)", file=sys.stderr)
    return 1


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
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
