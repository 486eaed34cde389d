"""The seam of environments: a recorder that makes transitions, and the wording of its prompts."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

from swirl_lightning.hints import require
from swirl_lightning.types import Transition, UnlabelledPair

__all__ = ["ENVIRONMENTS", "Environment", "Presplit", "Recorder", "recorder_options", "require"]


class Recorder(Protocol):
    """Makes transitions from a real simulator. One dataclass a simulator: its fields are the options of ``swirl record``.

    Options that change nothing in the data (how many workers) may be named in a class attribute ``free_options``.
    """

    def record(self) -> Iterator[Sequence[Transition | UnlabelledPair]]:
        """Yields finished episodes; the same options give the same episodes."""
        ...

    def episodes(self) -> int:
        """How many episodes ``record`` will yield, for the progress bar."""
        ...

    def manifest(self) -> dict[str, Any]:
        """What made the data: simulator, version, options, counts of what was left out."""
        ...


@runtime_checkable
class Presplit(Protocol):
    """A recorder of a world that comes with splits of its own."""

    def split_of(self, episode: str) -> str | None:
        """``train``, ``val`` or ``test``; None for training data, of which validation episodes are drawn as of any world."""
        ...


def recorder_options(recorder: Any, *, free: bool = False) -> dict[str, Any]:
    """Options of a recorder, as JSON holds them.

    Args:
        recorder: a dataclass.
        free: also those that change nothing in the data.

    Raises:
        TypeError: if it is no dataclass, so that nobody can tell two recordings apart.
    """
    if not is_dataclass(recorder):
        raise TypeError(f"{type(recorder).__name__} must be a dataclass whose fields are its options")
    left_out: frozenset[str] = frozenset() if free else getattr(recorder, "free_options", frozenset())
    options = {f.name: getattr(recorder, f.name) for f in fields(recorder) if f.init and f.name not in left_out}
    return dict(json.loads(json.dumps(options, default=str)))


@dataclass(frozen=True)
class Environment:
    """An entry of the registry.

    Attributes:
        recorder: ``module:Class`` of the recorder below this package, imported when it is used.
        help: One line for ``swirl record --help``.
    """

    recorder: str
    help: str = field(default="")


ENVIRONMENTS = {
    "aurora": Environment("visual.aurora:AuroraRecorder", "AURORA's image edits and its benchmark"),
    "bytemorph": Environment("visual.bytemorph:ByteMorphRecorder", "ByteMorph: five types of motion in images"),
    "bfcl": Environment("tools.bfcl:BfclRecorder", "BFCL's simulated APIs: calls, wrong calls, answers"),
    "crafter": Environment("visual.crafter:CrafterRecorder", "Crafter's open world as pictures, random walks"),
    "doorkey": Environment("text.doorkey:DoorKeyRecorder", "MiniGrid's DoorKey rooms, a fixed slot a thing"),
    "mind2web": Environment("web.mind2web:Mind2WebRecorder", "Mind2Web's released pages and actions"),
    "miniwob": Environment("web.miniwob:MiniWobRecorder", "MiniWoB++'s pages in a headless browser"),
    "minigrid_images": Environment(
        "visual.minigrid_images:MiniGridImageRecorder",
        "MiniGrid's DoorKey rooms as pictures of 64 pixels",
    ),
    "minigrid": Environment("text.minigrid:MiniGridRecorder", "MiniGrid grid worlds as compact text"),
    "pico_banana": Environment(
        "visual.pico_banana:PicoBananaRecorder",
        "PICO-BANANA-400K: image edits, in one or several turns",
    ),
    "scienceworld": Environment(
        "text.scienceworld:ScienceWorldRecorder",
        "ScienceWorld's rooms and science, gold paths and walks",
    ),
    "stabletoolbench": Environment("tools.stabletoolbench:StableToolBenchRecorder", "MirrorAPI's released calls of real tools"),
    "textworldexpress": Environment(
        "text.textworldexpress:TextWorldExpressRecorder",
        "TextWorldExpress's small text games, gold paths and walks",
    ),
    "video": Environment("visual.video:VideoRecorder", "any folder of videos as state-only pairs"),
}
"""Worlds that ``swirl record`` knows; adding one is a line here and a file beside this one."""


def load_recorder(name: str) -> type[Recorder]:
    """The class of a recorder.

    Args:
        name: a world of ``ENVIRONMENTS``, or ``module:Class`` of a recorder of one's own.

    Raises:
        ValueError: if there is no such module or class.
    """
    place = f"swirl_lightning.environments.{ENVIRONMENTS[name].recorder}" if name in ENVIRONMENTS else name
    module, _, kind = place.partition(":")
    try:
        loaded: type[Recorder] = getattr(importlib.import_module(module), kind)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"record: {place}: {error}; a module is found where it is installed, or on PYTHONPATH") from error
    return loaded
