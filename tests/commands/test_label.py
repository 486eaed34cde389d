"""``swirl label`` and ``swirl convert data``: data come out in the shape and with the fields that they came with."""

import gzip
import json
import math

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl_lightning.cli import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.types import Role
from swirl_lightning.world_model.inference import Inference
from tests.commands.conftest import steps, trajectory, write


@pytest.fixture(autouse=True)
def says(monkeypatch):
    """An IDM that says what it is told to say; its log-probabilities are its own."""
    said = {"answer": "go to hall"}
    monkeypatch.setattr(
        Inference, "infer_actions", lambda self, pairs, **_: [[f"{said['answer']}" if said["answer"] else ""] for _ in pairs]
    )
    return said


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def label(source, out, exported, *options):
    assert main(["label", str(source), str(exported[Role.IDM.value]), str(out), *map(str, options)]) == 0


def pairs(number):
    states, actions = trajectory(number)
    return [
        {"before": x, "after": y, "did": z, "run": number, "t": t, "reward": t / 2}
        for t, (x, y, z) in enumerate(zip(states, states[1:], actions, strict=False))
    ]


PAIRS = ["--columns", "{state: before, next_state: after, action: did, episode: run, step: t}"]


def test_pairs_keep_their_fields_and_their_labels(exported, tmp_path):
    rows = [*pairs(0), *[{**row, "did": None} for row in pairs(1)]]
    label(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", exported, *PAIRS)
    made = rows_of(tmp_path / "out.jsonl")
    assert [{k: v for k, v in row.items() if k not in ("did", "did_logprob")} for row in made] == [
        {k: v for k, v in row.items() if k != "did"} for row in rows
    ]
    assert [row["did"] for row in made] == [row["did"] or "go to hall" for row in rows]
    assert [row["did_logprob"] is None for row in made] == [True] * 5 + [False] * 5
    assert all(row["did_logprob"] < 0 for row in made[5:])
    label(tmp_path / "in.jsonl", tmp_path / "all.jsonl.gz", exported, *PAIRS, "--actions", "all")
    again = list(map(json.loads, gzip.decompress((tmp_path / "all.jsonl.gz").read_bytes()).splitlines()))
    assert {row["did"] for row in again} == {"go to hall"}


def test_pairs_without_a_column_of_actions(exported, tmp_path):
    rows = [{k: v for k, v in row.items() if k != "did"} for row in pairs(0)]
    label(write(tmp_path / "in.jsonl", rows), tmp_path / "out.csv", exported, *PAIRS)
    table = read_transitions(
        tmp_path / "out.csv", {"state": "before", "next_state": "after", "action": "did", "episode": "run", "step": "t"}
    )
    assert table.column("action") == ["go to hall"] * 5


@pytest.mark.parametrize("shape", ["along", "beside", "states alone", "a step a row"])
@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ""])
def test_trajectories(shape, ending, exported, tmp_path):
    states, actions = trajectory(0)
    source = {
        "along": [{"id": n, "steps": [{**step, "action": None} for step in steps(n)], "note": "kept"} for n in range(2)],
        "beside": [{"id": n, "observations": states, "actions": [actions[0], *[None] * 4], "note": "kept"} for n in range(2)],
        "states alone": [{"id": n, "log": {"states": states}, "note": "kept"} for n in range(2)],
        "a step a row": [{"id": n, "seen": x, "t": t, "note": "kept"} for n in range(2) for t, x in enumerate(states)],
    }[shape]
    columns = {
        "along": {"state": "steps.observation", "action": "steps.action", "episode": "id"},
        "beside": {"state": "observations", "action": "actions", "episode": "id"},
        "states alone": {"state": "log.states", "episode": "id"},
        "a step a row": {"state": "seen", "episode": "id", "step": "t"},
    }[shape]
    file = write(tmp_path / "in.jsonl", source)
    if ending == ".parquet":
        file = tmp_path / "in.parquet"
        pq.write_table(pa.Table.from_pylist(source), file)
    if ending == "":
        file = tmp_path / "in"
        datasets.Dataset.from_list(source).save_to_disk(str(file))
    out = tmp_path / f"out{ending}"
    label(file, out, exported, "--columns", json.dumps(columns))
    named = {"states alone": {"action": "log.actions"}}.get(shape, {})
    table = read_transitions(out, {**columns, **named})
    first = ["go to kitchen", *["go to hall"] * 4] if shape == "beside" else ["go to hall"] * 5
    assert table.column("action") == first * 2
    rows = (
        rows_of(out) if ending == ".jsonl" else pq.read_table(out).to_pylist() if ending else list(datasets.load_from_disk(out))
    )
    assert {row["note"] for row in rows} == {"kept"}
    place = {
        "along": lambda row: [step["action_logprob"] for step in row["steps"]],
        "beside": lambda row: row["actions_logprob"],
        "states alone": lambda row: row["log"]["actions_logprob"],
        "a step a row": lambda row: [row["action_logprob"]],
    }[shape]
    logprobs = [one for row in rows for one in place(row)]
    assert sum(one is not None and one < 0 for one in logprobs) == 2 * (4 if shape == "beside" else 5)
    assert len(logprobs) == len(rows) * {"along": 6, "a step a row": 1}.get(shape, 5)  # the last state has none


def test_kinds_of_actions(exported, says, tmp_path, capsys):
    rows = [{**row, "did": row["t"] if row["t"] < 2 else None} for row in pairs(0)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    says["answer"] = "3"
    label(tmp_path / "in.parquet", tmp_path / "out.parquet", exported, *PAIRS)
    made = pq.read_table(tmp_path / "out.parquet")
    assert made.schema.field("did").type == pa.int64()
    assert made.column("did").to_pylist() == [0, 1, 3, 3, 3]
    says["answer"] = "three"
    capsys.readouterr()
    label(tmp_path / "in.parquet", tmp_path / "wrong.parquet", exported, *PAIRS)
    assert pq.read_table(tmp_path / "wrong.parquet").column("did").to_pylist() == [0, 1, None, None, None]
    assert "3 inferred actions that are not of the column's kind, left empty" in capsys.readouterr().out
    says["answer"] = json.dumps({"name": "go", "arguments": {"to": "hall"}})
    objects = [{**row, "did": {"name": "wait", "arguments": {}} if row["t"] == 0 else None} for row in pairs(0)]
    label(write(tmp_path / "objects.jsonl", objects), tmp_path / "objects-out.jsonl", exported, *PAIRS)
    assert rows_of(tmp_path / "objects-out.jsonl")[1]["did"] == {"name": "go", "arguments": {"to": "hall"}}


def chat(answer):
    states, _ = trajectory(0, 4)
    turns = [{"role": "system", "content": "You act."}, {"role": "user", "content": states[0]}]
    for state in states[1:]:
        turns += [answer, {"role": "tool", "content": state}]
    return turns


def test_chats(exported, says, tmp_path):
    empty = {"role": "assistant", "content": None, "tool_calls": None}
    known = {**empty, "tool_calls": [{"type": "function", "function": {"name": "wait", "arguments": "{}"}}]}
    rows = [{"id": 0, "messages": chat(empty)}, {"id": 1, "messages": chat(known)}]
    says["answer"] = json.dumps({"name": "go", "arguments": {"to": "hall"}})
    label(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", exported)
    made = rows_of(tmp_path / "out.jsonl")
    calls = [turn["tool_calls"][0]["function"] for turn in made[0]["messages"] if turn["role"] == "assistant"]
    assert calls == [{"name": "go", "arguments": '{"to": "hall"}'}] * 3
    assert [turn["tool_calls"] for turn in made[1]["messages"] if turn["role"] == "assistant"] == [known["tool_calls"]] * 3
    assert sum(turn["action_logprob"] is not None for row in made for turn in row["messages"]) == 3
    table = read_transitions(tmp_path / "out.jsonl")
    assert table.column("action")[:3] == ['{"name": "go", "arguments": {"to": "hall"}}'] * 3


def of_form(form):
    """Two chats of one form; the second has no actions yet."""
    states, actions = trajectory(0, 4)
    known = {"type": "function", "function": {"name": "wait", "arguments": "{}"}}

    def turn(who, text):
        call = who == "assistant" and form == "OpenAI's"
        return {
            "OpenAI's": {"role": who, "content": None if call else text, "tool_calls": [known] if call and text else None},
            "ShareGPT's": {"from": {"assistant": "gpt", "user": "human"}.get(who, who), "value": text, "weight": 1.0},
            "SWE-agent's": {"role": {"assistant": "ai"}.get(who, who), "text": text, "system_prompt": None, "mask": False},
            "JSON text": {"role": who, "content": text},
        }[form]

    rows = []
    for n in range(2):
        turns = [turn("system", "You act."), turn("user", states[0])]
        for action, state in zip(actions, states[1:], strict=False):
            turns += [turn("assistant", None if n else action), turn("user", state)]
        rows.append({"id": n, "log": json.dumps(turns) if form == "JSON text" else turns, "note": "kept"})
    return rows


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ""])
@pytest.mark.parametrize("form", ["OpenAI's", "ShareGPT's", "SWE-agent's", "JSON text"])
def test_chats_of_every_form(form, ending, exported, says, tmp_path):
    if form == "OpenAI's":
        says["answer"] = json.dumps({"name": "go", "arguments": {"to": "hall"}})
    source = of_form(form) if form != "OpenAI's" or ending == ".jsonl" else of_form(form)[1:]  # no call anywhere: no type
    file = write(tmp_path / "in.jsonl", source) if ending == ".jsonl" else tmp_path / f"in{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(source), file)
    elif not ending:
        datasets.Dataset.from_list(source).save_to_disk(str(file))
    columns = {"messages": "log", "episode": "id"}
    label(file, tmp_path / f"out{ending}", exported, "--columns", json.dumps(columns))
    out = tmp_path / f"out{ending}"
    made = rows_of(out) if ending == ".jsonl" else pq.read_table(out).to_pylist() if ending else [*datasets.load_from_disk(out)]
    assert read_transitions(out, columns).column("action")[-3:] == [says["answer"]] * 3
    for row, before in zip(made, source, strict=True):
        turns, old = (json.loads(one) if isinstance(one, str) else one for one in (row["log"], before["log"]))
        logprobs = [turn.pop("action_logprob", None) for turn in turns]
        assert [one is not None and one < 0 for one in logprobs] == [
            row["id"] == 1 and at > 1 and at % 2 == 0 for at in range(len(turns))
        ]
        if row["id"] == 0:
            assert turns == old
        assert row["note"] == "kept"


def test_nothing_is_written_over_without_a_word(exported, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [{k: v for k, v in row.items() if k != "did"} for row in pairs(0)])
    (tmp_path / "out.jsonl").write_text("mine\n")
    idm = str(exported[Role.IDM.value])
    assert main(["label", str(source), idm, str(tmp_path / "out.jsonl"), *PAIRS]) == 1
    assert "exists already; --overwrite true writes over it" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"
    label(source, tmp_path / "out.jsonl", exported, *PAIRS, "--overwrite", "true")
    assert len(rows_of(tmp_path / "out.jsonl")) == 5
    assert main(["label", str(tmp_path / "out.jsonl"), idm, str(tmp_path / "more.jsonl"), *PAIRS]) == 1
    assert "every transition has an action; --actions all labels them anew" in capsys.readouterr().err
    assert main(["label", str(source), idm, str(tmp_path / "out.txt"), *PAIRS]) == 1
    assert "out.txt: the ending says what is written" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*tmp"))


def test_a_failure_leaves_nothing(exported, tmp_path, monkeypatch, capsys):
    source = write(tmp_path / "in.jsonl", [{k: v for k, v in row.items() if k != "did"} for row in pairs(0)])
    monkeypatch.setattr("swirl_lightning.data.writing.put", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    assert main(["label", str(source), str(exported[Role.IDM.value]), str(tmp_path / "out.jsonl"), *PAIRS]) == 1
    assert "disk gone" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl"]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv.gz", ".parquet", ""])
def test_convert_data_to_pairs(ending, house, tmp_path):
    out = tmp_path / f"pairs{ending}"
    columns = "{state: steps.observation, action: steps.action, episode: id, context: goal}"
    assert main(["convert", "data", "--data", str(house), "--out", str(out), "--columns", columns]) == 0
    ours = read_transitions(house, {"state": "steps.observation", "action": "steps.action", "episode": "id", "context": "goal"})
    theirs = read_transitions(out)
    for name in ("state", "next_state", "action", "context", "episode", "step"):
        assert theirs.column(name) == ours.column(name), name


def test_convert_data_keeps_rows(house, tmp_path):
    out = tmp_path / "house.parquet"
    columns = "{state: steps.observation, action: steps.action, episode: id}"
    arguments = ["--data", str(house), "--out", str(out), "--columns", columns, "--form", "rows"]
    assert main(["convert", "data", *arguments]) == 0
    assert pq.read_table(out).to_pylist() == rows_of(house)


def test_two_files_of_which_one_is_labelled(exported, tmp_path):
    write(tmp_path / "in" / "a.jsonl", pairs(0))
    write(tmp_path / "in" / "b.jsonl", [{k: v for k, v in row.items() if k != "did"} for row in pairs(1)])
    label(tmp_path / "in", tmp_path / "out.jsonl", exported, *PAIRS)
    made = rows_of(tmp_path / "out.jsonl")
    assert [row["run"] for row in made] == [0] * 5 + [1] * 5
    assert [row["did"] for row in made] == [row["did"] for row in pairs(0)] + ["go to hall"] * 5
    assert all(math.isfinite(row["did_logprob"]) for row in made[5:])
