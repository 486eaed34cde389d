"""Pairs read while training: a number means one pair, whoever asks and how often."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl_lightning.data import TransitionDataModule
from swirl_lightning.data.columns import DataError
from swirl_lightning.data.overlap import Overlap
from swirl_lightning.data.reading import Mapping
from swirl_lightning.data.stream import PairStream
from swirl_lightning.types import UnlabelledPair


def row(episode, step, **more):
    return {"state": f"{episode}.{step}", "next_state": f"{episode}.{step + 1}", "episode": episode, "step": step, **more}


@pytest.fixture
def files(tmp_path):
    """Three Parquet files of eight pairs, with actions."""
    rows = [row(f"e{e}", step, action="secret") for e in range(6) for step in range(4)]
    for part in range(3):
        pq.write_table(pa.Table.from_pylist(rows[part * 8 :][:8]), tmp_path / f"part-{part}.parquet")
    return tmp_path


def stream(path, columns=None, left_out=(), **options):
    names = sorted(left_out)
    table = pa.table({"state": names, "next_state": names})
    overlap = Overlap(table, np.arange(len(names)), names, np.ones(len(names), bool))
    mapping = Mapping(columns or {}, actions=False)
    return PairStream(str(path), mapping, overlap=overlap, **{"seed": 1, "buffer": 5, "window": 4, **options})


def states(pairs, numbers):
    return [pairs[number].state for number in numbers]


def test_every_pass_holds_everything_once_in_an_order_of_its_own(files):
    seen = states(stream(files), range(72))
    whole = sorted(f"e{e}.{step}" for e in range(6) for step in range(4))
    passes = [seen[start : start + 24] for start in (0, 24, 48)]
    assert [sorted(one) for one in passes] == [whole] * 3
    assert len({tuple(one) for one in passes}) == 3
    assert states(stream(files, seed=2), range(24)) != passes[0]


def test_a_number_means_the_same_pair_in_any_order_of_asking(files):
    expected = dict(enumerate(states(stream(files), range(60))))
    pairs = stream(files)
    for number in (0, 3, 1, 2, 40, 38, 59, 7, 59):  # behind the window: reads again from the start
        assert pairs[number].state == expected[number]


def test_a_buffer_of_one_keeps_the_order_of_the_files(files):
    assert states(stream(files, buffer=1), range(24)) == [f"e{e}.{step}" for e in range(6) for step in range(4)]


def test_known_episodes_and_other_splits_are_passed_over_and_no_action_is_there(tmp_path):
    file = tmp_path / "log.jsonl"
    lines = [row("a", 0, split="train"), row("b", 0, split="train"), row("c", 0, split="test"), row("d", 0)]
    file.write_text("".join(json.dumps({**line, "action": "secret"}) + "\n" for line in lines))
    pairs = stream(file, left_out={"b"})
    assert Counter(states(pairs, range(4))) == {"a.0": 2, "d.0": 2}
    assert isinstance(pairs[0], UnlabelledPair)
    assert not hasattr(pairs[0], "action")
    with pytest.raises(DataError, match="holds no pair to train on"):
        stream(file, left_out={"a", "b", "d"})[0]


def test_columns_are_mapped_and_images_stay_bytes(tmp_path):
    table = pa.table({"before": [b"png1", b"png2"], "after": [b"png2", b"png3"], "task": ["t", "t"], "try": [1, 2]})
    pq.write_table(table, tmp_path / "log.parquet")
    columns = {"state": "before", "next_state": "after", "episode": ["task", "try"], "step": None}
    first = stream(tmp_path / "log.parquet", columns, buffer=1)[0]
    assert first == UnlabelledPair(b"png1", b"png2", "", "t/1", 0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"next_state": "y", "episode": "e"}, "line 2: field 'state' is missing"),
        ({"state": "x", "next_state": "y"}, "line 2: field 'episode' is missing"),
        ({"state": "x", "next_state": 3, "episode": "e"}, "line 2: field 'next_state' .* must be text, got int: 3"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, line, says):
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps(row("a", 0)) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=says):
        states(stream(file), range(2))


def test_the_files_beginnings_are_checked_before_training(tmp_path, files):
    log = tmp_path.with_name(f"{tmp_path.name}.jsonl")
    log.write_text("".join(json.dumps(row(f"x{e}", 0, action="go")) + "\n" for e in range(20)))
    options = {"val_fraction": 0.2, "test_fraction": 0.2, "stream_batches": 3}
    pq.write_table(pa.table({"state": ["x"], "episode": ["e"]}), files / "part-9.parquet")
    with pytest.raises(DataError, match=r"part-9.parquet: column 'next_state' .* is missing"):
        TransitionDataModule(str(log), state_only=str(files), **options).setup()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TransitionDataModule(str(log), state_only=str(tmp_path / "nowhere"), **options).setup()
    with pytest.raises(ValueError, match=r"stream_batches must be at least 1 and needs data\.state_only"):
        TransitionDataModule(str(log), stream_batches=3)
    with pytest.raises(ValueError, match=r"stream is data\.state_only now: write state_only: logs, and keep stream_batches"):
        TransitionDataModule(str(log), stream="logs", stream_batches=3)
