"""Every shape of the household world, written here by hand, becomes the same pairs; what makes no pair is counted."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl_lightning.data import read_transitions
from swirl_lightning.data.columns import DataError
from swirl_lightning.types import Transition, UnlabelledPair

STATES = {"a": ["at drawer", "at fridge", "at fridge, open", "at shelf"], "b": ["at sink", "at desk", "at desk, mug"]}
ACTIONS = {"a": ["go to fridge", "open fridge", "go to shelf"], "b": ["go to desk", "take mug"]}
EXPECTED = [
    Transition(*STATES[e][k : k + 2], ACTIONS[e][k], episode=e, step=k) for e in ("a", "b") for k in range(len(ACTIONS[e]))
]
PAIRS = [
    {"state": t.state, "next_state": t.next_state, "action": t.action, "episode": t.episode, "step": t.step} for t in EXPECTED
]


def with_last(episode):
    """States with the actions after them; nothing is done in the last one."""
    return list(zip(STATES[episode], [*ACTIONS[episode], None], strict=True))


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tools(episode):
    calls = [{"function": {"name": "do", "arguments": json.dumps({"what": action})}} for action in ACTIONS[episode]]
    turns = [{"role": "system", "content": "You are a robot."}, {"role": "user", "content": STATES[episode][0]}]
    for call, answer in zip(calls, STATES[episode][1:], strict=True):
        turns += [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": answer}]
    return turns


STEPS = [{"id": e, "steps": [{"observation": s, "action": a} for s, a in with_last(e)]} for e in STATES]
ROWS = [
    {"run": e, "t": k, "observation": s, "action": a, "done": a is None}
    for e in STATES
    for k, (s, a) in enumerate(with_last(e))
]
SHAPES = {
    "pairs": (PAIRS, {}),
    "steps in a row": (STEPS, {"state": "steps.observation", "action": "steps.action", "episode": "id"}),
    "steps without the last action": (
        [
            {"id": r["id"], "trace": {"steps": [*r["steps"][:-1], {"observation": r["steps"][-1]["observation"]}]}}
            for r in STEPS
        ],
        {"state": "trace.steps.observation", "action": "trace.steps.action", "episode": "id"},
    ),
    "next states in the steps": (
        [
            {"id": e, "steps": [{"o": s, "a": a, "o2": n} for (s, a), n in zip(with_last(e), STATES[e][1:], strict=False)]}
            for e in STATES
        ],
        {"state": "steps.o", "action": "steps.a", "next_state": "steps.o2", "episode": "id"},
    ),
    "parallel lists, n + 1 states": (
        [{"id": e, "observations": STATES[e], "actions": ACTIONS[e]} for e in STATES],
        {"state": "observations", "action": "actions", "episode": "id"},
    ),
    "a step a row": (ROWS, {"state": "observation", "episode": "run", "step": "t"}),
    "a step a row, out of order": (ROWS[::-1], {"state": "observation", "episode": "run", "step": "t"}),
    "steps as JSON text": (
        [{"id": r["id"], "steps": json.dumps(r["steps"])} for r in STEPS],
        {"state": "steps.observation", "action": "steps.action", "episode": "id"},
    ),
    "names with dots": (
        [{"episode": r["run"], "step": r["t"], "observation.state": r["observation"], "action": r["action"]} for r in ROWS],
        {"state": "observation.state"},
    ),
    "observations after their actions": (
        [{"id": e, "log": [{"do": a, "see": s} for s, a in zip(STATES[e], [None, *ACTIONS[e]], strict=True)]} for e in STATES],
        {"state": None, "next_state": "log.see", "action": "log.do", "episode": "id"},
    ),
}


def as_set(items):
    return sorted(items, key=lambda t: (t.episode, t.step))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_every_shape_gives_the_same_transitions(tmp_path, shape, kind):
    rows, columns = SHAPES[shape]
    path = tmp_path / f"log.{kind}"
    if kind == "jsonl":
        lines(path, rows)
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert as_set(read_transitions(path, columns)) == EXPECTED


def test_n_states_with_n_actions_leave_the_last_action_over(tmp_path):
    rows = [{"id": e, "o": STATES[e], "a": [*ACTIONS[e], "rest"]} for e in STATES]
    table = read_transitions(lines(tmp_path / "log.jsonl", rows), {"state": "o", "action": "a", "episode": "id"})
    assert list(table) == EXPECTED
    assert table.report.counts["actions after which no state comes"] == 2


@pytest.mark.parametrize("share_gpt", [False, True])
def test_chats_take_the_answers_as_states_and_the_calls_as_actions(tmp_path, share_gpt):
    rows = [{"id": e, "messages": tools(e)} for e in STATES]
    if share_gpt:
        rows = [
            {
                "id": row["id"],
                "conversations": [
                    {
                        "from": {"assistant": "function_call", "tool": "observation"}.get(turn["role"], turn["role"]),
                        "value": value,
                    }
                    for turn in row["messages"]
                    for value in [turn["content"] or json.dumps(turn["tool_calls"][0]["function"])]
                ],
            }
            for row in rows
        ]
    table = read_transitions(lines(tmp_path / "log.jsonl", rows), {"episode": "id"})
    assert [(t.state, t.next_state, t.episode, t.step) for t in table] == [
        (t.state, t.next_state, t.episode, t.step) for t in EXPECTED
    ]
    assert [json.loads(t.action) for t in table] == [{"name": "do", "arguments": {"what": t.action}} for t in EXPECTED]
    assert table[0].context == "You are a robot.\nat drawer"


def test_an_action_pattern_takes_the_action_out_of_a_thought(tmp_path):
    turns = [("human", "Task: tidy up."), ("gpt", "OK."), ("human", "at drawer")]
    turns += [("gpt", "Thought: hm.\nAction: open drawer"), ("human", "drawer open"), ("gpt", "Thought: done.\nAction: stop")]
    rows = [{"conversations": [{"from": role, "value": value} for role, value in turns]}]
    table = read_transitions(lines(tmp_path / "log.jsonl", rows), {"episode": None}, action_pattern=r"Action:\s*(.*)")
    assert [(t.state, t.next_state) for t in table] == [("Task: tidy up.", "at drawer"), ("at drawer", "drawer open")]
    assert isinstance(table[0], UnlabelledPair)
    assert table[1].action == "open drawer"
    assert table.report.counts["actions that data.action_pattern does not match, whose pairs are state-only"] == 1
    assert table.report.counts["actions after which no state comes"] == 1


def test_states_alone_give_state_only_pairs_with_stride_and_change(tmp_path):
    rows = [{"id": "v", "states": ["a", "b", "b", "c", "d", "e", "f"]}, {"id": "w", "states": ["a"]}]
    path, columns = lines(tmp_path / "log.jsonl", rows), {"state": "states", "episode": "id"}
    table = read_transitions(path, columns)
    assert [(t.state, t.next_state) for t in table] == list(zip("abbcde", "bbcdef", strict=True))
    assert all(isinstance(t, UnlabelledPair) for t in table)
    assert table.report.counts["no-ops (the next state is the state)"] == 1
    assert table.report.counts["single states without a neighbour"] == 1
    strided = read_transitions(path, columns, stride=2)
    assert [(t.state, t.next_state) for t in strided] == [("a", "b"), ("b", "d"), ("d", "f")]
    changed = read_transitions(path, columns, min_change=0.01)
    assert len(changed) == 5
    assert changed.report.counts["pairs left out that change less than data.min_change"] == 1


def test_gaps_and_flags_part_an_episode(tmp_path):
    rows = [{"episode": "e", "step": k, "state": f"s{k}", "done": k == 5} for k in (0, 1, 3, 4, 5, 6)]
    table = read_transitions(lines(tmp_path / "log.jsonl", rows))
    assert [t.step for t in table] == [0, 3, 4]
    assert table.report.counts["gaps in step, across which no pair is made"] == 1
    assert table.report.counts["ends by the done flag inside an episode, across which no pair is made"] == 1
    assert table.report.counts["single states without a neighbour"] == 1


def test_rows_without_names_of_episodes_are_parted_by_files_or_flags(tmp_path):
    for name, start in (("one", 0), ("two", 10)):
        lines(tmp_path / f"{name}.jsonl", [{"state": f"s{start + k}", "done": k == 1} for k in range(4)])
    table = read_transitions(tmp_path, {"episode": None})
    assert [(t.episode, t.state) for t in table] == [
        ("one.jsonl:1", "s0"),
        ("one.jsonl:2", "s2"),
        ("two.jsonl:1", "s10"),
        ("two.jsonl:2", "s12"),
    ]
    by_file = read_transitions(tmp_path, {"episode": None, "done": None})
    assert [(t.episode, t.step) for t in by_file] == [(f"{name}.jsonl", k) for name in ("one", "two") for k in range(3)]


def test_a_null_action_makes_its_row_state_only_and_no_other(tmp_path):
    rows = [*PAIRS[:2], {**PAIRS[2], "action": None}, *PAIRS[3:]]
    table = read_transitions(lines(tmp_path / "log.jsonl", rows))
    assert [isinstance(t, Transition) for t in table] == [True, True, False, True, True]


@pytest.mark.parametrize("single", [False, True])
def test_single_precision_and_images_in_columns(tmp_path, single):
    states = pa.array([[0.1, 0.2], [0.3, 0.4]], pa.list_(pa.float32() if single else pa.float64()))
    rows = pa.table({"episode": [0, 0], "step": [0, 1], "state": states, "action": [[1.5], [2.5]]})
    pq.write_table(rows, tmp_path / "log.parquet")
    (pair,) = read_transitions(tmp_path / "log.parquet")
    assert (pair.state, pair.next_state, pair.action) == ("[0.1, 0.2]", "[0.3, 0.4]", "[1.5]")
    frames = [{"bytes": b"png1", "path": None}, {"bytes": b"png2", "path": None}]
    pq.write_table(pa.table({"id": ["v"], "frames": [frames]}), tmp_path / "frames.parquet")
    (pair,) = read_transitions(tmp_path / "frames.parquet", {"state": "frames", "episode": "id"})
    assert (pair.state, pair.next_state) == (b"png1", b"png2")


@pytest.mark.parametrize("suffix", ["jsonl.gz", "ndjson.bz2", "jsonl.xz", "json.zst", "csv", "tsv.gz", "csv.xz"])
def test_files_of_every_kind_packed_or_not(tmp_path, suffix):
    kind, _, packed = suffix.partition(".")
    if kind in ("csv", "tsv"):
        separator = "\t" if kind == "tsv" else ","
        text = "\n".join(separator.join(f'"{v}"' if isinstance(v, str) else str(v) for v in row.values()) for row in PAIRS)
        text = separator.join(PAIRS[0]) + "\n" + text + "\n"
    else:
        text = json.dumps(PAIRS) if kind == "json" else "".join(json.dumps(row) + "\n" for row in PAIRS)
    data = text.encode()
    if packed == "zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        data = sink.getvalue().to_pybytes()
    else:
        data = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "": bytes}[packed](data)
    (tmp_path / f"log.{suffix}").write_bytes(data)
    assert list(read_transitions(tmp_path / f"log.{suffix}")) == EXPECTED


def test_lists_of_paths_and_globs_of_folders(tmp_path):
    for name, part in (("x", PAIRS[:3]), ("y", PAIRS[3:])):
        (tmp_path / name).mkdir()
        lines(tmp_path / name / "log.jsonl", part)
    assert list(read_transitions([tmp_path / "x", tmp_path / "y" / "log.jsonl"])) == EXPECTED
    assert list(read_transitions(tmp_path / "*")) == EXPECTED


def test_one_column_for_both_states_is_refused(tmp_path):
    path = lines(tmp_path / "log.jsonl", PAIRS)
    with pytest.raises(DataError, match="state and next_state are one column, 'state', so nothing would ever change"):
        read_transitions(path, {"next_state": "state"})


def test_lists_of_numbers_are_states_where_rows_are_steps_and_trajectories_elsewhere(tmp_path):
    vectors = [{"run": 0, "o": [k, 0.5], "a": [k]} for k in range(3)]
    table = read_transitions(lines(tmp_path / "steps.jsonl", vectors), {"state": "o", "action": "a", "episode": "run"})
    assert [(t.state, t.next_state, t.action) for t in table] == [
        (f"[{k}, 0.5]", f"[{k + 1}, 0.5]", f"[{k}]") for k in range(2)
    ]
    whole = [{"run": run, "o": [3, 4, 5], "a": [0, 1]} for run in range(2)]
    table = read_transitions(lines(tmp_path / "whole.jsonl", whole), {"state": "o", "action": "a", "episode": "run"})
    assert [(t.state, t.next_state, t.action) for t in table] == [("3", "4", "0"), ("4", "5", "1")] * 2


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_a_stream_of_steps_counts_and_pairs_like_a_whole_reading(tmp_path, stride, monkeypatch):
    """Whatever the borders between blocks: rows wait for the next block."""
    import swirl_lightning.data.json_files as json_files
    from swirl_lightning.data.reading import Mapping, Reading
    from swirl_lightning.data.sources import items
    from swirl_lightning.data.stream import _pairs

    lengths = [1, 2, 7, 1, 12, 3, 3]
    rows = [{"episode": f"e{e}", "step": k + 3 * (k > 4), "state": f"{e}.{k}"} for e, n in enumerate(lengths) for k in range(n)]
    path = lines(tmp_path / "log.jsonl", rows)
    whole = read_transitions(path, stride=stride)
    for size in (1, 100, 250, 1000):
        monkeypatch.setattr(json_files, "_BYTES_AT_ONCE", size)
        reading = Reading(Mapping(actions=False, stride=stride))
        found = pa.concat_tables(list(_pairs(items(path)[0][0], reading)))
        assert found.column("state").to_pylist() == whole.column("state")
        assert found.column("next_state").to_pylist() == whole.column("next_state")
        assert reading.report.counts == whole.report.counts
