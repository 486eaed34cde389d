"""What goes wrong with users' files: one message each, with the place, the column and the way out; nothing is lost silently."""

import gzip
import json
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl_lightning.data import TransitionDataModule, read_transitions
from swirl_lightning.data.columns import DataError

STEPS = {"state": "steps.o", "action": "steps.a", "episode": "id"}
LISTS = {"state": "o", "action": "a", "episode": "id"}


def row(step=0, **changes):
    return {"state": f"s{step}", "next_state": f"s{step + 1}", "action": "go", "episode": "e", "step": step, **changes}


def lines(*rows):
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows).encode()


def parquet(**columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def not_utf8(*texts):
    """An Arrow array that calls itself text, whatever the bytes are."""
    return pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())


MISTAKES = {
    "an empty file": ({"log.jsonl": b""}, {}, r"log\.jsonl is empty: no transition in it"),
    "an empty table": ({"log.csv": b"state,next_state\n"}, {}, r"log\.csv is empty: no transition in it"),
    "a list of unequal lengths": (
        {"log.jsonl": lines({"id": 1, "o": ["x", "y", "z"], "a": ["go"]})},
        LISTS,
        r"log\.jsonl, line 1: 1 values of field 'action' \(column 'a'\) for 3 states \(column 'o'\); there must be",
    ),
    "a step number twice": (
        {"log.jsonl": lines(*({"episode": "e", "step": k, "state": "s"} for k in (0, 1, 1)))},
        {},
        r"line 3: episode 'e' step 1 was already at .*log\.jsonl, line 2; .*\{step: null\}",
    ),
    "text and numbers in a column": (
        {"log.jsonl": lines(row(0), row(1, action=7))},
        {},
        r"line 2: field 'action' \(column 'action'\) must be text, got int: 7; it was text in .*line 1\. Write the column",
    ),
    "objects and text in a column": (
        {"log.jsonl": lines({"id": 1, "steps": [{"o": {"x": 1}, "a": "go"}, {"o": "x", "a": None}]})},
        STEPS,
        r"line 1, step 2: field 'state' \(column 'steps\.o'\) must be of one kind \(object\), got str: 'x'",
    ),
    "a Parquet text that is not UTF-8": (
        {"log.parquet": parquet(state=not_utf8(b"x", b"y", b"\xff"), next_state=["a", "b", "c"], episode=["e"] * 3)},
        {},
        r"log\.parquet, row 3: .*Invalid UTF8 sequence.*; texts must be UTF-8",
    ),
    "a header that is not UTF-8": (
        {"log.csv": "state,next_state,episode\nx,y,e\n".encode("utf-16")},
        {},
        r"log\.csv: the header is not UTF-8",
    ),
    "a step that no computer counts to": (
        {"log.jsonl": lines(row(0), row(2**70))},
        {},
        r"line 2: field 'step' \(column 'step'\) must be an integer, got int: 1180591620717411303424",
    ),
    "no action anywhere": (
        {"log.jsonl": lines({"episode": "e", "state": "x"}, {"episode": "e", "state": "y"})},
        {},
        r"no row of '.*log\.jsonl' has an action, so its labelled split is empty; give it as data\.state_only",
    ),
    "a packed file that was cut off": (
        {"log.jsonl.gz": gzip.compress(lines(*(row(k) for k in range(99))))[:-40]},
        {},
        r"log\.jsonl\.gz: cut off or not gzip \(.*\); was it written or downloaded to the end\?",
    ),
    "a file that is not packed": ({"log.csv.xz": b"state,next_state\n"}, {}, r"log\.csv\.xz: cut off or not xz"),
    "bytes that are not UTF-8": (
        {"log.jsonl": lines(row(0)) + lines(row(1)).replace(b"s1", b"\xff\xfe")},
        {},
        r"log\.jsonl, line 2: malformed JSON .*can't decode byte 0xff",
    ),
    "a CSV that is not UTF-8": (
        {"log.csv": b"state,next_state,episode\nx,\xff,e\n"},
        {},
        r"log\.csv: not readable as CSV in UTF-8.*[Cc]olumn #1.*Row #2",
    ),
    "a CSV row with too many cells": (
        {"log.csv": b"state,next_state,episode\nx,y,e\nx,y,z,e\n"},
        {},
        r"log\.csv, row 2: 4 cells, but the header names 3: 'x,y,z,e'; quote cells",
    ),
    "an empty cell": (
        {"log.csv": b"state,next_state,episode\nx,,e\n"},
        {},
        r"log\.csv, row 1: field 'next_state' is missing; an empty text is written as \"\" there",
    ),
    "a glob without a match": ({}, {}, r"data\.path: '.*log\.jsonl' matches no file; it may be Parquet"),
    "a nested path that some rows lack": (
        {
            "log.jsonl": lines(
                {"id": 1, "steps": [{"o": "x", "a": "go"}, {"o": "y"}]}, {"id": 2, "steps": [{"o": "x"}, {"p": 1}]}
            )
        },
        STEPS,
        r"line 2, step 2: field 'state' is missing \(column 'steps\.o'\)",
    ),
    "a row without the list": (
        {"log.jsonl": lines({"id": 1, "steps": [{"o": "x"}, {"o": "y"}]}, {"id": 2})},
        STEPS,
        r"line 2: field 'state' \(column 'steps\.o'\) must be a list, as states are in the first rows, got NoneType",
    ),
    "a path that leads nowhere": (
        {"log.jsonl": lines({"id": 1, "steps": [{"obs": "x"}]})},
        STEPS,
        r"column 'steps\.o' \(field 'state'\) is missing; there are: id, steps, steps\.obs\. map it",
    ),
    "a path through a list of lists": (
        {"log.jsonl": lines({"id": 1, "steps": [[{"o": "x"}], [{"o": "y"}]]})},
        STEPS,
        r"log\.jsonl: column 'steps\.o': two lists lie on the way to 'o'; a row must be one trajectory",
    ),
    "two files with different columns": (
        {"1.jsonl": lines(row(0)), "2.jsonl": lines({k: v for k, v in row(0, episode="f").items() if k != "action"})},
        {},
        r"2\.jsonl: column 'action' \(field 'action'\) is missing; there are: episode, next_state, state, step\. .*1\.jsonl",
    ),
    "an episode in both files": (
        {"1.jsonl": lines(row(0)), "2.jsonl": lines(row(0))},
        {},
        r"2\.jsonl, line 1: episode 'e' step 0 was at .*1\.jsonl, line 1 already; episode ids must be unique",
    ),
    "files of two kinds": (
        {"1.jsonl": lines(row(0)), "2.csv": b"state,next_state,episode\nx,y,e\n"},
        {},
        r"holds files of several kinds \(csv, jsonl\); name one kind, e\.g\. ",
    ),
    "a folder without data": ({"notes.txt": b"hello"}, {}, r"matches no data file .*; there are: notes\.txt"),
    "a file that is no data": ({"log.txt": b"hello"}, {}, r"log\.txt is no data file; it may be Parquet"),
    "NaN in a state": (
        {"log.jsonl": lines('{"state": {"x": NaN}, "next_state": {"x": 1}, "episode": "e"}')},
        {},
        r"line 1: field 'state' \(column 'state'\) cannot be written as JSON \(Out of range float values are not JSON",
    ),
    "a name twice in an object": (
        {"log.jsonl": lines(row(0), '{"state": "x", "state": "y", "next_state": "z", "episode": "e", "step": 1}')},
        {},
        r"line 2: malformed JSON \(the name 'state' is there twice in one object\)",
    ),
    "a header that names a column twice": (
        {"log.csv": b"state,state,next_state,episode\na,b,c,e\n"},
        {},
        r"log\.csv: column 'state' is there twice; rename one of them",
    ),
    "JSON that ends too early": ({"log.json": b'[{"state": "x"}, {"st'}, {}, r"log\.json, record 2: malformed or cut off JSON"),
    "something after a list": ({"log.json": b'[{"state": "x"}] 7'}, {}, r"something follows the list"),
    "a list of numbers": ({"log.json": b"[1, 2]"}, {}, r"log\.json, record 1: must hold one JSON object, got int"),
    "nothing but null": ({"log.jsonl": b"null\n"}, {}, r"line 1: must hold one JSON object, got NoneType"),
    "brackets within brackets": ({"log.jsonl": b'{"state": ' + b"[" * 100_000 + b"\n"}, {}, r"line 1: malformed JSON"),
    "a chat that is mapped as states": (
        {"log.jsonl": lines({"id": 1, "m": [{"role": "user", "content": "x"}]})},
        {"state": "m", "episode": "id"},
        r"column 'm' holds a chat; map it as data\.columns: \{messages: YOUR_COLUMN\}",
    ),
    "a chat with an unknown role": (
        {"log.jsonl": lines({"messages": [{"role": "wizard", "content": "x"}]})},
        {},
        r"line 1: column 'messages' turn 1 has no role that is known \('wizard'\); roles are agent, ai, assistant",
    ),
    "states of bytes and of text": (
        {
            "1.parquet": parquet(state=["x"], next_state=["y"], episode=["e"]),
            "2.parquet": parquet(state=[b"x"], next_state=[b"y"], episode=["f"]),
        },
        {},
        r"2\.parquet, row 1: field 'state' .*must be text, got bytes",
    ),
    "every episode a single state": (
        {"log.jsonl": lines(*({"episode": k, "state": "x"} for k in range(3)))},
        {},
        r"column 'next_state' .* is missing; .*there are none \(3 single states without a neighbour\)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message_with_its_place_and_the_way_out(tmp_path, name):
    files, columns, message = MISTAKES[name]
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    path = tmp_path / (
        next(iter(files)) if len(files) == 1 and name != "a folder without data" else "" if files else "log.jsonl"
    )
    with pytest.raises((DataError, ValueError, FileNotFoundError), match=message):
        TransitionDataModule(str(path), columns, val_fraction=0.0, test_fraction=0.0).setup("fit")


def test_harmless_oddities_are_read(tmp_path):
    """A byte-order mark, NaN beside what is read, cells of several lines, CRLF, 10 MB texts, a million columns."""
    long = "x" * 10_000_000
    wide = json.dumps({**row(2), **{f"c{k}": 0 for k in range(1_000_000)}})
    odd = ['{"reward": NaN, ' + json.dumps(row(0))[1:], json.dumps(row(1, state=long)), wide]
    (tmp_path / "log.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(odd).encode() + b"\n\n")
    table = read_transitions(tmp_path / "log.jsonl")
    assert [t.state for t in table] == ["s0", long, "s2"]
    cells = 'state,next_state,action,episode,step\n"a, ""b""\nc",d,,e,0\n"",f,go,e,1\n"' + long + '",g,go,e,2\n'
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + cells.encode())
    table = read_transitions(tmp_path / "log.csv")
    assert [t.state for t in table] == ['a, "b"\nc', "", long]
    assert table.column("action") == [None, "go", "go"]
    (tmp_path / "wide.csv").write_text(",".join(("state", *map(str, range(99_999)))) + ("\nx" + ",1" * 99_999) * 2)
    assert len(read_transitions(tmp_path / "wide.csv", {"episode": None})) == 1
    (tmp_path / "pandas.jsonl").write_bytes(lines(*(row(k) | {"step": float(k)} for k in range(3))))
    assert read_transitions(tmp_path / "pandas.jsonl").column("step") == [0, 1, 2]


@pytest.mark.parametrize(
    ("pattern", "says"), [("(", "is no regular expression"), ("x", "must have one group"), ("(a)(b)", "has 2")]
)
def test_an_action_pattern_has_one_group(tmp_path, pattern, says):
    with pytest.raises(DataError, match=says):
        TransitionDataModule(str(tmp_path), action_pattern=pattern)


def test_files_that_are_no_data_are_counted(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(lines(row(0)))
    (tmp_path / "README.md").write_text("hello")
    assert read_transitions(tmp_path).report.counts["files that are no data (README.md)"] == 1


def both(folder, path_rows, state_only_rows, **options):
    (folder / "labelled.jsonl").write_bytes(lines(*path_rows))
    (folder / "others.jsonl").write_bytes(lines(*state_only_rows))
    options = {"val_fraction": 0.0, "test_fraction": 0.0, **options}
    return TransitionDataModule(str(folder / "labelled.jsonl"), state_only=str(folder / "others.jsonl"), **options)


@pytest.mark.parametrize("streamed", [False, True])
def test_state_only_data_keep_all_labels_and_lose_what_evaluation_knows(tmp_path, streamed, caplog):
    labelled = [row(k, episode=f"e{e}", split="test" if e == 3 else "train") for e in range(4) for k in range(2)]
    others = [
        *(row(k, episode="f") for k in range(3)),
        row(0, episode="e0"),  # which path has
        row(7, episode="e0"),  # another pair of that episode
        row(5, episode="e3"),  # of a test episode
    ]
    for other in others:
        other["action"] = "secret"
    module = both(tmp_path, labelled, others, **({"stream_batches": 2, "batch_size": 2} if streamed else {}))
    module.setup("fit")
    assert (len(module.labelled), len(module.test)) == (6, 2)
    pairs = {(p.episode, p.step) for p in (module._pairs[k] for k in range(4))}
    assert pairs == {("f", 0), ("f", 1), ("f", 2), ("e0", 7)}
    assert not hasattr(module._pairs[0], "action")
    if not streamed:
        assert len(module.unlabelled) == 4


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_pairs_like_held_out_ones_of_other_episodes_are_kept_and_counted(tmp_path, streamed, named, caplog):
    labelled = [row(k, episode=f"e{e}", split="test" if e else "train") for e in range(2) for k in range(4 * e, 4 * e + 3)]
    others = [row(k, episode="f") for k in range(6)]  # 4 and 5 are pairs of the test episode as well
    columns = {} if named else {"episode": None, "step": None}
    options = {"stream_batches": 3, "batch_size": 2} if streamed else {}
    module = both(tmp_path, labelled, others, state_only_columns=columns, **options)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        module.setup("fit")
        assert {module._pairs[k].state for k in range(7 if streamed else 6)} == {f"s{k}" for k in range(6)}
    assert "2 pairs that are also validation or test transitions of data.path, kept" in caplog.text


def test_state_only_data_that_path_holds_already_are_refused(tmp_path):
    rows = [row(k, episode="e") for k in range(3)]
    with pytest.raises(DataError, match=r"others\.jsonl holds no pair to train on: 3 pairs that data\.path holds"):
        both(tmp_path, rows, rows).setup("fit")


def test_a_shape_of_its_own_asks_for_columns_of_its_own(tmp_path):
    module = both(tmp_path, [row(0)], [{"id": 1, "states": ["x", "y"]}])
    with pytest.raises(DataError, match=r"there are: id, states\. map it: data\.state_only_columns: \{state: YOUR_COLUMN\}"):
        module.setup("fit")


def test_a_labelled_fraction_beside_state_only_data_means_what_it_says(tmp_path):
    labelled = [row(k, episode=f"e{e}") for e in range(10) for k in range(2)]
    module = both(tmp_path, labelled, [row(0, episode="f")], labelled_fraction=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.setup("fit")
    assert (len(module.labelled), len(module.unlabelled)) == (6, 15)
