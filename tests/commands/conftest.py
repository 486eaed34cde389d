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


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    """FWM and IDM as `swirl export` writes them."""
    from swirl_lightning.codecs import load_codec
    from swirl_lightning.conversion.export import export_role
    from swirl_lightning.types import Role, SamplingParams
    from swirl_lightning.world_model import WorldModel, WorldModelConfig
    from swirl_lightning.world_model.inference import Inference
    from swirl_lightning.world_model.prompts import PromptBuilder

    world_model = WorldModel(WorldModelConfig(base=str(model)), reference=False)
    sampling = {role: SamplingParams(max_new_tokens=6) for role in Role}
    inference = Inference(world_model, PromptBuilder(load_codec(model), max_prompt_tokens=120), sampling)
    folder = tmp_path_factory.mktemp("exported")
    return {role.value: export_role(inference, role, folder / role.value) for role in Role}
