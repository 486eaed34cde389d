"""MiniGrid's DoorKey rooms as images: the simulator's own picture of the full grid, one tile a cell.

What the agent carries is not in the simulator's picture; it is drawn into the top left cell, which is always wall. A picture
can be read back into cells (:func:`read_cells`), so a predicted image is right when it shows the right world.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swirl_lightning.codecs.image_pixels import pixels, to_png
from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.text.doorkey import DoorKeyRecorder
from swirl_lightning.hints import require

TILE = 8  # pixels of a cell's side


@dataclass
class MiniGridImageRecorder(DoorKeyRecorder):
    """Records DoorKey episodes as pictures; options as of the text recorder.

    Attributes:
        cells: Cells of a picture's side, 8 pixels each; smaller rooms stand in the top left corner, on black.
    """

    env_ids: Sequence[str] = ("MiniGrid-DoorKey-6x6-v0", "MiniGrid-DoorKey-8x8-v0")
    cells: int = 8

    def describe(self, env: Any) -> bytes:  # type: ignore[override]
        """PNG bytes of the full grid."""
        return to_png(draw_grid(env, self.cells))

    def manifest(self) -> dict[str, Any]:
        """Simulator, version and options."""
        return {**super().manifest(), "tile": TILE, "pillow": version("pillow")}


class MiniGridImageDataModule(WorldDataModule):
    """MiniGrid's DoorKey rooms as pictures: the visual quickstart's world.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: MiniGridImageRecorder = MiniGridImageRecorder(),  # noqa: B008  # holds options only
        path: str = "data/minigrid_images",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


def draw_grid(env: Any, cells: int = 8) -> NDArray[np.uint8]:
    """The simulator's picture of its full grid with the carried object on the top left wall, uint8 [side, side, 3].

    Args:
        env: the simulator.
        cells: of the picture's side, 8 pixels each.

    Raises:
        ValueError: if the grid has more cells a side.
    """
    grid = env.grid
    if max(grid.width, grid.height) > cells:
        raise ValueError(f"minigrid_images: a picture has {cells} x {cells} cells, the grid {grid.width} x {grid.height}")
    picture = np.zeros((cells * TILE, cells * TILE, 3), dtype=np.uint8)
    drawn = grid.render(TILE, env.agent_pos, env.agent_dir)  # [height * TILE, width * TILE, 3]
    picture[: drawn.shape[0], : drawn.shape[1]] = drawn
    if env.carrying:
        picture[:TILE, :TILE] = grid.render_tile(env.carrying, tile_size=TILE)
    return picture


@functools.cache
def _tiles() -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names and pictures [K, TILE, TILE, 3] of everything that a cell can show, drawn by the simulator."""
    objects = require("minigrid.core.world_object", "minigrid")
    grid = require("minigrid.core.grid", "minigrid").Grid
    door = functools.partial(objects.Door, "yellow")
    things = {
        "empty": None,
        "wall": objects.Wall(),
        "goal": objects.Goal(),
        "key": objects.Key("yellow"),
        "door open": door(is_open=True),
        "door closed": door(is_open=False),
        "door locked": door(is_open=False, is_locked=True),
    }
    shown = {"nothing": np.zeros((TILE, TILE, 3), dtype=np.uint8)}
    shown |= {name: grid.render_tile(thing, tile_size=TILE) for name, thing in things.items()}
    for under in ("empty", "door open", "goal"):
        for direction, name in enumerate(("east", "south", "west", "north")):
            shown[f"agent {name}, {under}"] = grid.render_tile(things[under], agent_dir=direction, tile_size=TILE)
    return tuple(shown), np.stack(list(shown.values())).astype(np.float32)


def read_cells(image: bytes) -> tuple[str, ...]:
    """What each cell of a picture shows: the simulator's tile that is nearest in RGB.

    Args:
        image: an encoded picture, rendered by the simulator or predicted.

    Returns:
        Names in reading order, one a cell.

    Raises:
        ValueError: if the picture's side is no multiple of a cell's.
    """
    names, tiles = _tiles()
    array = pixels(image, None).astype(np.float32)
    side = len(array) // TILE
    if side * TILE != len(array):
        raise ValueError(f"minigrid_images: a picture of {len(array)} pixels a side is not made of cells of {TILE}")
    cells = array.reshape(side, TILE, side, TILE, 3).swapaxes(1, 2).reshape(side * side, -1)  # [side * side, TILE * TILE * 3]
    flat = tiles.reshape(len(tiles), -1)  # [K, TILE * TILE * 3]
    distance = (flat**2).sum(1)[None] - 2 * cells @ flat.T  # [side * side, K], less what is the same for all tiles
    return tuple(names[i] for i in distance.argmin(1))
