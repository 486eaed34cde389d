"""A small made-up household as a user's own files, and an untrained model that reads it."""

import json

import pytest

from swirl_lightning.cli import main

ROOMS = ("hall", "kitchen", "cellar", "attic")


def trajectory(number, steps=6):
    """States and the actions between them: through the rooms, from another one on each time."""
    rooms = [ROOMS[(number + i * (1 + number % 3)) % 4] for i in range(steps)]
    return [f"You are in the {room}." for room in rooms], [f"go to {room}" for room in rooms[1:]]


def steps(number):
    states, actions = trajectory(number)
    return [{"observation": x, "action": z} for x, z in zip(states, [*actions, None], strict=True)]


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    """A file of trajectories: 20 of 6 steps, with fields of no interest to us."""
    rows = [{"id": f"house-{n}", "goal": "Look around.", "steps": steps(n), "reward": n / 2} for n in range(20)]
    return write(tmp_path_factory.mktemp("house") / "house.jsonl", rows)


COLUMNS = "{state: steps.observation, action: steps.action, episode: id, context: goal}"


@pytest.fixture(scope="session")
def model(house, tmp_path_factory):
    """A model folder without weights."""
    out = tmp_path_factory.mktemp("model") / "model"
    sizes = ["--hidden_size", "32", "--layers", "1", "--heads", "2", "--vocab_size", "300", "--max_positions", "160"]
    assert main(["init", "--data", str(house), "--columns", COLUMNS, "--out", str(out), *sizes]) == 0
    return out
