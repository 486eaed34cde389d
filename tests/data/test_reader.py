"""Files of every format become the same transitions; what is wrong is said with its file, line and field."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl_lightning.data.reader import read_transitions
from swirl_lightning.data.schema import write_transitions
from swirl_lightning.types import Transition, UnlabelledPair

ROWS = [Transition(f"s{i}", f"s{i + 1}", f"a{i}", "task", f"e{i // 3}", i % 3) for i in range(9)]


def as_dict(t):
    return {name: getattr(t, name) for name in ("state", "next_state", "action", "context", "episode", "step")}


def jsonl(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def changed(index, **fields):
    rows = [as_dict(t) for t in ROWS]
    rows[index] |= fields
    return rows


def test_parquet_round_trip(tmp_path):
    assert write_transitions(tmp_path, ((t, "train") for t in ROWS), lambda: {"simulator": "none"}) == 9
    table = read_transitions(tmp_path)
    assert list(table) == ROWS
    assert table[-1] == ROWS[-1]
    assert table[2:4] == ROWS[2:4]
    assert json.loads((tmp_path / "manifest.json").read_text()) == {"simulator": "none", "transitions": 9}


def test_image_states_round_trip(tmp_path):
    rows = [Transition(b"\x89PNG\x00", b"\x89PNG\xff", "rotate", episode="v", step=0)]
    write_transitions(tmp_path, ((t, None) for t in rows), dict)
    assert list(read_transitions(tmp_path)) == rows


def test_a_failed_recording_leaves_the_previous_one(tmp_path):
    write_transitions(tmp_path, ((t, None) for t in ROWS), dict)

    def breaks():
        yield ROWS[0], None
        raise RuntimeError("simulator died")

    with pytest.raises(RuntimeError, match="simulator died"):
        write_transitions(tmp_path, breaks(), dict)
    assert list(read_transitions(tmp_path)) == ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "transitions.parquet"]


def test_jsonl_equals_parquet_and_globs_keep_file_order(tmp_path):
    jsonl(tmp_path / "part-1.jsonl", [as_dict(t) for t in ROWS[:4]])
    jsonl(tmp_path / "part-2.jsonl", [as_dict(t) for t in ROWS[4:]])
    assert list(read_transitions(tmp_path / "part-*.jsonl")) == ROWS
    assert list(read_transitions(tmp_path)) == ROWS


def test_columns_map_fields_join_episodes_and_leave_fields_unread(tmp_path):
    rows = [{"before": "x", "after": "y", "cmd": "go", "task": "boil", "variation": 3, "split": "train"}] * 2
    columns = {
        "state": "before",
        "next_state": "after",
        "action": "cmd",
        "episode": ["task", "variation"],
        "split": None,
    }
    table = read_transitions(jsonl(tmp_path / "log.jsonl", rows), columns)
    assert list(table) == [Transition("x", "y", "go", "", "boil/3", step) for step in (0, 1)]
    assert table.column("split") == [None, None]
    alone = read_transitions(tmp_path / "log.jsonl", {**columns, "episode": None})
    assert alone[0].episode != alone[1].episode


def test_an_action_that_the_first_line_lacks_is_not_lost(tmp_path):
    rows = changed(0)
    del rows[0]["action"]
    table = read_transitions(jsonl(tmp_path / "log.jsonl", rows))
    assert isinstance(table[0], UnlabelledPair)
    assert table[1] == ROWS[1]


@pytest.mark.parametrize("kind", ["dataset", "splits"])
def test_hugging_face_datasets(tmp_path, kind):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list([as_dict(t) for t in ROWS])
    if kind == "splits":
        dataset = datasets.DatasetDict({"train": dataset.select(range(6)), "validation": dataset.select(range(6, 9))})
    dataset.save_to_disk(str(tmp_path / "saved"))
    table = read_transitions(tmp_path / "saved")
    assert list(table) == ROWS
    expected = [None] * 9 if kind == "dataset" else ["train"] * 6 + ["validation"] * 3
    assert table.column("split") == expected


def test_parquet_of_other_writers(tmp_path):
    table = pa.table(
        {
            "state": pa.array([t.state for t in ROWS], pa.large_string()),
            "next_state": pa.array([t.next_state for t in ROWS], pa.large_string()),
            "action": pa.array([t.action for t in ROWS]).dictionary_encode(),
            "episode": pa.array([i // 3 for i in range(9)], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    found = read_transitions(tmp_path / "log.parquet")
    assert [t.action for t in found] == [t.action for t in ROWS]
    assert [(t.episode, t.step) for t in found] == [(str(i // 3), i % 3) for i in range(9)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*changed(0)[:2], '{"state": '], r"log\.jsonl, line 3: malformed JSON"),
        ([*changed(0)[:2], "[1]"], r"log\.jsonl, line 3: must hold one JSON object, got list"),
        (changed(3, step="three"), r"log\.jsonl, line 4: field 'step'.* must be an integer, got str: 'three'"),
        (changed(5, state=["x"]), r"log\.jsonl, line 6: field 'state'.* must be text, got list"),
        (changed(6, action=4), r"log\.jsonl, line 7: field 'action'.* must be text, got int: 4"),
        (changed(8, next_state=None), r"log\.jsonl, line 9: field 'next_state' is missing"),
        (
            [{"state": "x", "y": "y", "episode": "e"}],
            r"column 'next_state' .* is missing; there are: episode, state, y",
        ),
        ([], r"is empty: no transition"),
    ],
)
def test_bad_lines_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_transitions(jsonl(tmp_path / "log.jsonl", rows))


def test_bad_lines_of_a_second_file_are_named_by_their_own_line(tmp_path):
    jsonl(tmp_path / "part-1.jsonl", [as_dict(t) for t in ROWS])
    jsonl(tmp_path / "part-2.jsonl", changed(1, state=None))
    with pytest.raises(ValueError, match=r"part-2\.jsonl, line 2: field 'state' is missing"):
        read_transitions(tmp_path / "part-*.jsonl")


def test_bad_parquet_is_named(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"broken\.parquet: not a readable Parquet file"):
        read_transitions(tmp_path / "broken.parquet")
    pq.write_table(
        pa.table({"state": ["x"], "action": [b"y"], "next_state": ["y"], "episode": ["e"]}), tmp_path / "log.parquet"
    )
    with pytest.raises(ValueError, match=r"log\.parquet, row 1: field 'action' .* must be text, got bytes"):
        read_transitions(tmp_path / "log.parquet")


def test_missing_files_and_mistaken_mappings_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        read_transitions(tmp_path / "nothing.jsonl")
    with pytest.raises(FileNotFoundError, match="matches no"):
        read_transitions(tmp_path)
    path = jsonl(tmp_path / "log.jsonl", [as_dict(t) for t in ROWS])
    with pytest.raises(ValueError, match="there is no field 'stat'"):
        read_transitions(path, {"stat": "state"})
    with pytest.raises(ValueError, match=r"column 'before' \(field 'state'\) is missing"):
        read_transitions(path, {"state": "before"})


@pytest.mark.skipif("SWIRL_DATA_ROOT" not in os.environ, reason="set SWIRL_DATA_ROOT to a folder of real samples")
@pytest.mark.parametrize(
    ("file", "columns", "count"),
    [
        ("scienceworld/train.jsonl", {"episode": ["task", "variation"], "context": "task_desc", "split": None}, 1117),
        ("textworld_express/transitions.jsonl", {"episode": ["game", "seed"], "context": "task"}, 347),
        ("bfcl/transitions.jsonl", {"episode": ["id", "cls"], "context": "api_doc", "step": None}, 300),
        ("miniwob/transitions.jsonl", {"episode": ["task", "seed"], "context": "utterance"}, 75),
    ],
)
def test_real_samples(file, columns, count):
    table = read_transitions(Path(os.environ["SWIRL_DATA_ROOT"]) / file, columns)
    assert len(table) == count
    assert all(isinstance(row, Transition) and row.action for row in table)
