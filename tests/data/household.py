"""A made-up household in the shapes of users' logs, small enough to count by hand: ten episodes of 3, 4, 5, 3, ... steps."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

EPISODES = 10
STEPS = [3 + number % 3 for number in range(EPISODES)]  # 3, 4, 5, 3, 4, 5, 3, 4, 5, 3: 39 in all
TRANSITIONS = 39
_PLACES = ("drawer", "fridge", "shelf", "desk", "sink")


def states(number, seed=0):
    """One state more than there are steps."""
    return [f"You are at {_PLACES[(number + seed + k) % 5]} {k}. You carry nothing." for k in range(STEPS[number] + 1)]


def actions(number, seed=0):
    return [f"go to {_PLACES[(number + seed + k) % 5]} {k}" for k in range(1, STEPS[number] + 1)]


def transitions(number, seed=0):
    return zip(states(number, seed), actions(number, seed), states(number, seed)[1:], strict=False)


def pairs(run=0, *, seed=0, label=True):
    for number in range(EPISODES):
        for t, (before, command, after) in enumerate(transitions(number, seed)):
            row = {"task": f"house-{number}", "run": run, "t": t, "before": before, "after": after}
            yield {**row, "command": command} if label else row


def objects(*, call):
    for number in range(EPISODES):
        for step, (before, action, after) in enumerate(transitions(number)):
            made = {"place": before.split()[3], "hand": None}, {"place": after.split()[3], "hand": None}
            yield number, step, *made, call(action)


def chat(number):
    turns = [{"role": "system", "content": "You control a robot."}, {"role": "user", "content": "Tidy up."}]
    for k, (_, action, after) in enumerate(transitions(number)):
        call = {"id": f"c{k}", "type": "function", "function": {"name": "go", "arguments": json.dumps({"to": action[6:]})}}
        turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        turns.append({"role": "tool", "tool_call_id": f"c{k}", "content": after})
    return turns


def write(folder):
    """Every file that ``howto/own-data.md`` names, but pictures."""
    every = range(EPISODES)
    ids = [f"house-{number}/0" for number in every]
    steps = [[*zip(states(number), [*actions(number), None], strict=True)] for number in every]
    calls = list(objects(call=lambda action: {"name": "go", "arguments": {"to": action[6:]}}))
    lines = {
        "a_pairs": pairs(),
        "a_rows_null": (
            {"state": r["before"], "next_state": r["after"], "action": r["command"] if r["t"] else None}
            | {"episode": f"{r['task']}/{r['run']}", "step": r["t"]}
            for r in pairs()
        ),
        "c_objects": ({"episode": e, "step": k, "state": s, "next_state": n, "action": a} for e, k, s, n, a in calls),
        "b_steps": (
            {"id": ids[n], "task": "tidy up", "steps": [{"observation": s, "action": a} for s, a in steps[n]]} for n in every
        ),
        "b_parallel_lists": ({"id": ids[n], "observations": states(n), "actions": actions(n)} for n in every),
        "b_step_rows": (
            {"episode_id": n, "step": k, "observation": s, "action": a, "reward": 0.0, "done": a is None}
            for n in every
            for k, (s, a) in enumerate(steps[n])
        ),
        "b_messages_tools": ({"task_id": n, "messages": chat(n)} for n in every),
        "f_labelled": pairs(),
        "f_unlabelled_pairs": pairs(60, seed=1, label=False),
        "f_states_only": ({"id": f"house-{n}/60", "states": states(n, 1)} for n in every),
        "f_state_rows": ({"video": f"house-{n}/60", "frame": k, "state": s} for n in every for k, s in enumerate(states(n, 1))),
    }
    for name, rows in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "a_pairs.jsonl.gz").write_bytes(gzip.compress((folder / "a_pairs.jsonl").read_bytes()))
    (folder / "a_pairs_array.json").write_text(json.dumps(list(pairs())))
    with (folder / "d_pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["task", "run", "t", "before", "after", "command"])
        writer.writeheader()
        writer.writerows(pairs())
    texts = [[before, after] for number in every for before, _, after in transitions(number)]
    for name, s, n, a in (
        ("c_struct", [c[2] for c in calls], [c[3] for c in calls], [c[4] for c in calls]),
        ("c_jsontext", *([json.dumps(c[k]) for c in calls] for k in (2, 3, 4))),
        ("c_int_action", [t[0] for t in texts], [t[1] for t in texts], list(range(TRANSITIONS))),
    ):
        table = {"episode_index": [c[0] for c in calls], "frame_index": [c[1] for c in calls]}
        pq.write_table(pa.table({**table, "state": s, "next_state": n, "action": a}), folder / f"{name}.parquet")
