"""AURORA's published layout, in files made here."""

import json

import pytest

pytest.importorskip("PIL")

from swirl_lightning.codecs.image_pixels import ImageError
from swirl_lightning.data.columns import DataError
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.visual.aurora import AuroraRecorder
from tests.visual import picture


@pytest.fixture
def root(tmp_path):
    images = tmp_path / "data" / "kubric" / "images"
    images.mkdir(parents=True)
    for x in range(3):
        (images / f"{x}.png").write_bytes(picture(4 * x, 0))
    bench = [
        {"input": image(0), "output": image(1), "instruction": "move the square right", "task": "kubric"},
        {"input": image(0), "instruction": "make it night", "task": "emu"},
        {"input": image(0), "output": None, "instruction": "add a hat", "task": "emu"},
    ]
    (tmp_path / "test.json").write_text(json.dumps(bench))
    train = [{"input": image(1), "output": image(2), "instruction": f"again {k}"} for k in range(8)]
    (tmp_path / "data" / "kubric" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    return tmp_path


def image(x):
    return f"data/kubric/images/{x}.png"


def test_records_become_transitions_and_the_benchmark_is_the_test_split(root):
    from swirl_lightning.cli import main

    out = root / "out"
    assert main(["record", "aurora", "--env.root", str(root), "--out", str(out), "--val_fraction", "0.3"]) == 0
    table = read_transitions(out)
    splits = dict(zip(table.column("episode"), table.column("split"), strict=True))
    assert {episode.split("/")[0] for episode, split in splits.items() if split == "test"} == {"test"}
    assert set(splits.values()) == {"train", "val", "test"}
    first = next(row for row in table if row.episode == "test/kubric/1")
    assert (first.state, first.next_state, first.action) == (picture(0, 0), picture(4, 0), "move the square right")
    counts = json.loads((out / "manifest.json").read_text())["records"]
    assert counts == {"test/kubric": 1, "test/emu": 2, "train/kubric": 8, "records without a target image": 2}


def test_a_missing_image_is_named_or_counted(root):
    (root / image(1)).unlink()
    with pytest.raises(DataError, match=r"test\.json, record 1: field 'output': there is no file"):
        list(AuroraRecorder(root).record())
    recorder = AuroraRecorder(root, missing="skip")
    assert not any(recorder.record())
    assert recorder.counts["records without an image file"] == 9


def test_a_corrupt_image_is_named(root):
    (root / image(2)).write_bytes(picture()[:30])
    with pytest.raises(ImageError, match=r"train\.jsonl, record 1, field 'output': not a readable image"):
        list(AuroraRecorder(root, parts=("train",)).record())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "malformed JSON"),
        ('["a"]', "record 1: must be an object"),
        (json.dumps([{"input": image(0), "output": image(1)}]), "record 1: field 'instruction' must be text"),
        (json.dumps([{"output": image(1), "instruction": "a"}]), "record 1: field 'input' must be text"),
    ],
)
def test_malformed_records_are_named(root, content, message):
    (root / "test.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list(AuroraRecorder(root, parts=("test",)).record())


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither test\.json nor"):
        AuroraRecorder(tmp_path)
