"""The mapping is guessed by names and by contents; each guess reads its file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from swirl_lightning.data.guess import guess
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.data.reading import Mapping, Reading
from swirl_lightning.data.sources import items
from tests.data import household
from tests.data.test_howto import BLOCKS, OTHERS
from tests.data.test_public_shapes import SHAPES as PUBLIC

SAID = [f"You stand in the {room}. The lamp is {lamp}." for room in ("hall", "kitchen", "cellar") for lamp in ("on", "off")]
ORDERS = ["go to kitchen", "press the switch", "go down", "press the switch", "wait"]
PNG = b"\x89PNG\r\n\x1a\n"


def flat(**names):
    """Rows of pairs: three episodes of five steps; ``names`` maps what they hold to their columns."""
    made = []
    for episode in range(3):
        for step, order in enumerate(ORDERS):
            row = {"state": SAID[step], "after": SAID[step + 1], "action": order, "episode": f"e{episode}", "step": step}
            row |= {
                "run": episode,
                "task": f"house-{episode // 2}",
                "done": step == 4,
                "reward": 0.5,
                "number": 100 + len(made),
            }
            row |= {
                "code": step % 3,
                "vector": [step * 0.5, 1.0],
                "object": {"x": step, "hand": None},
                "goal": "Find the lamp.",
            }
            row |= {"picture": PNG + bytes([step]), "picture_after": PNG + bytes([step + 1]), "split": "train", "nothing": None}
            row |= {"next_vector": [(step + 1) * 0.5, 1.0], "call": {"name": order.split()[0], "arguments": {"n": step}}}
            made.append({column: row[what] for column, what in names.items()})
    return made


def lists(inner, length=6, **outer):
    return [
        {"steps": [dict(zip(inner, (SAID[i], ORDERS[i] if i < 5 else None), strict=False)) for i in range(length)], **outer}
        | {"uid": f"u{n}"}
        for n in range(3)
    ]


SHAPES = {  # rows, the mapping, pairs
    "gym": (
        flat(
            obs="state",
            action="action",
            reward="reward",
            next_obs="after",
            terminated="done",
            episode_id="run",
            timestep="step",
        ),
        {"state": "obs", "next_state": "next_obs", "episode": "episode_id", "step": "timestep"},
        15,
    ),
    "gym, a step a row": (
        flat(observation="state", act="action", reward="reward", terminated="done", ep="run", t="step"),
        {"state": "observation", "action": "act", "episode": "ep", "step": "t", "done": "terminated"},
        12,
    ),
    "camel case": (
        flat(stateBefore="state", stateAfter="after", toolCall="call", sessionId="episode", stepIndex="step"),
        {"state": "stateBefore", "next_state": "stateAfter", "action": "toolCall", "episode": "sessionId", "step": "stepIndex"},
        15,
    ),
    "input and output": (
        flat(input="state", instruction="action", output="after", trajectory_id="episode"),
        {"state": "input", "action": "instruction", "next_state": "output", "episode": "trajectory_id"},
        15,
    ),
    "letters": (
        flat(s="state", a="action", s_next="after", traj="run"),
        {"state": "s", "action": "a", "next_state": "s_next", "episode": "traj"},
        15,
    ),
    "numbered": (
        flat(s1="state", cmd="action", s2="after", game="task", seed="run", idx="step"),
        {"state": "s1", "action": "cmd", "next_state": "s2", "episode": ["game", "seed"], "step": "idx"},
        15,
    ),
    "names that say nothing": (
        flat(col1="state", col2="action", col3="after", col4="episode"),
        {"state": "col1", "action": "col2", "next_state": "col3", "episode": None},
        15,
    ),
    "a row an episode": (
        flat(source_image="picture", target_image="picture_after", edit_prompt="action"),
        {"state": "source_image", "next_state": "target_image", "action": "edit_prompt", "episode": None},
        15,
    ),
    "robot, LeRobot": (
        [
            {{"state": "observation.state", "done": "next.done"}.get(name, name): value for name, value in row.items()}
            for row in flat(
                state="vector",
                action="next_vector",
                timestamp="reward",
                frame_index="step",
                episode_index="run",
                index="number",
                task_index="code",
                done="done",
            )
        ],
        {"state": "observation.state", "episode": "episode_index", "step": "frame_index", "done": "next.done"},
        12,
    ),
    "robot, RLDS": (
        [
            {
                "episode_id": n,
                "steps": [
                    {
                        "observation": {"state": [i * 0.5, 1.0], "wrist": [0.25]},
                        "action": [0.5 * i, 0.0],
                        "reward": 0.0,
                        "is_first": i == 0,
                        "is_last": i == 5,
                        "language_instruction": "pick up the mug",
                    }
                    for i in range(6)
                ],
            }
            for n in range(3)
        ],
        {
            "state": "steps.observation",
            "action": "steps.action",
            "episode": "episode_id",
            "done": "steps.is_last",
            "context": "steps.language_instruction",
        },
        15,
    ),
    "D4RL": (
        [{"id": n, "observations": SAID, "actions": ORDERS, "rewards": [0.0] * 5, "terminals": [False] * 6} for n in range(3)],
        {"state": "observations", "action": "actions", "episode": "id", "done": "terminals"},
        15,
    ),
    "web, Mind2Web": (
        [
            {
                "annotation_id": f"a{n}",
                "website": "shop",
                "confirmed_task": "Buy a lamp in the shop.",
                "actions": [
                    {
                        "action_uid": f"{n}-{i}",
                        "raw_html": f"<html><body>{SAID[i]}</body></html>",
                        "cleaned_html": f"<body>{SAID[i]}</body>",
                        "operation": {"op": "CLICK", "value": ORDERS[i]},
                    }
                    for i in range(5)
                ],
            }
            for n in range(3)
        ],
        {
            "state": "actions.cleaned_html",
            "action": "actions.operation",
            "episode": "annotation_id",
            "context": "confirmed_task",
        },
        12,
    ),
    "trajectory of objects": (
        lists(("obs", "act"), goal="Find the lamp."),
        {"state": "steps.obs", "action": "steps.act", "episode": "uid", "context": "goal"},
        15,
    ),
    "ShareGPT": (
        [
            {
                "id": f"c{n}",
                "conversations": [
                    turn
                    for said, order in zip(SAID, ORDERS, strict=False)
                    for turn in ({"from": "human", "value": said}, {"from": "gpt", "value": order})
                ],
            }
            for n in range(3)
        ],
        {"messages": "conversations", "episode": "id"},
        12,
    ),
    "frames": (
        flat(video_id="episode", frame_id="step", caption="state"),
        {"state": "caption", "episode": "video_id", "step": "frame_id"},
        12,
    ),
    "lists of states": (
        [{"name": f"v{n}", "observations": SAID} for n in range(3)],
        {"state": "observations"},
        15,
    ),
    "null actions": (
        flat(state="state", next_state="after", action="nothing", episode="episode", step="step"),
        {},
        15,
    ),
    "JSON objects": (
        flat(world_before="object", command="call", world_after="object", run_id="run"),
        {"state": "world_before", "action": "command", "next_state": "world_after", "episode": "run_id"},
        15,
    ),
    "own splits": (
        flat(page="state", click="action", next_page="after", session="episode", turn="step", subset="split", query="goal"),
        {
            "state": "page",
            "action": "click",
            "next_state": "next_page",
            "episode": "session",
            "step": "turn",
            "split": "subset",
            "context": "query",
        },
        15,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_public_data(shape, tmp_path):
    rows, columns, pairs = SHAPES[shape]
    if any(isinstance(value, bytes) for value in rows[0].values()):
        file = tmp_path / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
    (item,), _ = items(file)
    guessed = guess(Reading(Mapping()).reader(item))
    assert guessed.columns == columns
    table = read_transitions(file, guessed.columns)
    assert len(table) == pairs
    assert guessed.labelled == (table.table.column("action").null_count < pairs)


def same_as_the_page(columns, file, name):
    """The guess agrees with howto/own-data.md on what a pair is made of."""
    asked = ("state", "next_state", "action", "messages", "episode", "step")
    (item,), _ = items(file)
    guessed = guess(Reading(Mapping()).reader(item)).columns
    mine, its = ({f: c.get(f) for f in asked if c.get(f) not in (f, None)} for c in (guessed, columns or {}))
    assert mine == its, name


def test_shapes_of_users_logs(tmp_path):
    household.write(tmp_path)
    others = {other: name for name, more in OTHERS.items() for other in more}
    for file in sorted(tmp_path.glob("[abcdf]_*")):
        name = others.get(file.name, "a_pairs.jsonl" if file.name == "f_labelled.jsonl" else file.name)
        settings = yaml.safe_load(BLOCKS[name])["data"]["init_args"]
        columns = settings.get("columns")
        if "state_only" in settings:
            columns = settings.get("state_only_columns", {k: v for k, v in (columns or {}).items() if k != "action"})
        same_as_the_page(columns, file, file.name)


def test_shapes_of_public_data_sets(tmp_path):
    for number, (name, (make, *_)) in enumerate(PUBLIC.items()):
        file = tmp_path / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist([make(n) for n in range(5)]), file)
        same_as_the_page(yaml.safe_load(BLOCKS[name])["data"]["init_args"]["columns"], file, name)


def test_nothing_like_a_state(tmp_path):
    (tmp_path / "numbers.jsonl").write_text('{"loss": 0.5, "epoch": 1}\n{"loss": 0.25, "epoch": 2}\n')
    (item,), _ = items(tmp_path / "numbers.jsonl")
    assert guess(Reading(Mapping()).reader(item)) is None
