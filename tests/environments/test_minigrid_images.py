"""MiniGrid as pictures: what the simulator says is what the picture shows."""

import random

import pytest

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("minigrid")
pytest.importorskip("PIL")

from swirl_lightning.data import read_transitions  # noqa: E402
from swirl_lightning.environments.text.minigrid import DIRECTIONS  # noqa: E402
from swirl_lightning.environments.visual.minigrid_images import MiniGridImageRecorder, draw_grid, read_cells  # noqa: E402


def expected(env, side=8):
    """Cells of a picture as the simulator's own objects say."""
    cells = ["nothing"] * side**2
    for y in range(env.grid.height):
        for x in range(env.grid.width):
            thing = env.grid.get(x, y)
            name = "empty" if thing is None else thing.type
            if name == "door":
                name += " open" if thing.is_open else " locked" if thing.is_locked else " closed"
            if (x, y) == tuple(env.agent_pos):
                name = f"agent {DIRECTIONS[env.agent_dir]}, {name}"
            cells[y * side + x] = name
    if env.carrying:
        cells[0] = env.carrying.type
    return tuple(cells)


def test_pictures_read_back_as_the_simulators_state():
    from swirl_lightning.codecs.image_pixels import to_png

    recorder, seen = MiniGridImageRecorder(interact=1.0, put_down=0.1), set()
    for seed in range(6):
        env = gymnasium.make(recorder.env_ids[seed % 2]).unwrapped
        env.reset(seed=seed)
        rng = random.Random(seed)
        for _ in range(60):
            cells = read_cells(to_png(draw_grid(env)))
            assert cells == expected(env)
            seen |= set(cells)
            env.step(recorder.choose(env, rng))
    assert {"key", "door locked", "door open", "goal"} <= seen
    assert {f"agent {d}, empty" for d in DIRECTIONS} <= seen


def test_a_smaller_picture_is_read_by_its_own_size():
    from swirl_lightning.codecs.image_pixels import to_png

    env = gymnasium.make("MiniGrid-DoorKey-6x6-v0").unwrapped
    env.reset(seed=0)
    picture = draw_grid(env, 6)
    assert picture.shape == (48, 48, 3)
    assert read_cells(to_png(picture)) == expected(env, 6)
    with pytest.raises(ValueError, match="a picture of 44 pixels a side is not made of cells of 8"):
        read_cells(to_png(picture[:44, :44]))
    with pytest.raises(ValueError, match="5 x 5 cells, the grid 6 x 6"):
        MiniGridImageRecorder(cells=5).describe(env)


def test_recorded_pictures_go_through_parquet(tmp_path):
    from swirl_lightning.cli import main

    options = ["--env.n_episodes", "3", "--env.max_steps", "6"]
    for name in ("a", "b"):
        assert main(["record", "minigrid_images", "--out", str(tmp_path / name), *options]) == 0
    rows = [list(read_transitions(tmp_path / name)) for name in ("a", "b")]
    assert rows[0] == rows[1]
    for row in rows[0]:
        assert row.state.startswith(b"\x89PNG")
        assert row.action
        changed = [i for i, (a, b) in enumerate(zip(read_cells(row.state), read_cells(row.next_state), strict=True)) if a != b]
        assert 1 <= len(changed) <= 2


def test_a_room_that_does_not_fit_is_refused():
    env = gymnasium.make("MiniGrid-DoorKey-16x16-v0").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="8 x 8 cells, the grid 16 x 16"):
        draw_grid(env)
