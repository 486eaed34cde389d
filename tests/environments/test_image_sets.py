"""PICO-BANANA's and ByteMorph's published layouts, in files made here."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("PIL")

from swirl_lightning.cli import main
from swirl_lightning.codecs.image_pixels import ImageError
from swirl_lightning.data.columns import DataError
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.visual.bytemorph import ByteMorphRecorder
from swirl_lightning.environments.visual.pico_banana import PicoBananaRecorder
from tests.visual import picture

EDIT = {"local_input_image": "in/0.png", "output_image": "out/0.png", "text": "Please move it.", "summarized_text": "move it"}


@pytest.fixture
def pico(tmp_path):
    for folder, x in (("in", 0), ("out", 4)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(picture(x))
    rows = [{**EDIT, "edit_type": "motion", "open_image_input_url": "u"} for _ in range(3)]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_pico_edits_become_transitions(pico):
    recorder = PicoBananaRecorder(pico, "sft.jsonl")
    (first,), *rest = recorder.record()
    assert (first.state, first.next_state, first.action) == (picture(0), picture(4), "move it")
    assert len(rest) == 2
    assert recorder.manifest()["records"] == {"motion": 3}
    assert next(PicoBananaRecorder(pico, "sft.jsonl", action="text").record())[0].action == "Please move it."


def test_pico_names_what_is_missing(pico):
    (pico / "out" / "0.png").unlink()
    with pytest.raises(DataError, match="record 1: field 'output_image': there is no file"):
        list(PicoBananaRecorder(pico, "sft.jsonl").record())
    assert not any(PicoBananaRecorder(pico, "sft.jsonl", missing="skip").record())
    (pico / "sft.jsonl").write_text(json.dumps({"output_image": "out/0.png"}) + "\n")
    with pytest.raises(DataError, match="field 'local_input_image' must be text"):
        list(PicoBananaRecorder(pico, "sft.jsonl").record())
    with pytest.raises(FileNotFoundError, match="there is no file"):
        PicoBananaRecorder(pico, "other.jsonl")


@pytest.fixture
def turns(tmp_path):
    """A multi-turn file of two records, three images each; the second record's are named by the last part of their URLs."""
    (tmp_path / "nested" / "deep").mkdir(parents=True)
    for i in range(3):
        (tmp_path / "nested" / "deep" / f"{i}.png").write_bytes(picture(i))
        (tmp_path / f"b {i}.png").write_bytes(picture(i + 4))
    urls = [[f"https://host/nested/deep/{i}.png" for i in range(3)], [f"https://host/elsewhere/b%20{i}.png" for i in range(3)]]
    prompts = ["first", "second"]
    rows = [
        {"files": [{"id": str(i), "url": u} for i, u in enumerate(us)], "metadata_edit_turn_prompts": prompts} for us in urls
    ]
    (tmp_path / "multi.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path, rows


def test_pico_turns_become_steps_of_an_episode(turns):
    root, _ = turns
    recorder = PicoBananaRecorder(root, "multi.jsonl")
    first, second = recorder.record()
    assert [(t.state, t.next_state, t.action, t.step) for t in first] == [
        (picture(0), picture(1), "first", 0),
        (picture(1), picture(2), "second", 1),
    ]
    assert [t.state for t in second] == [picture(4), picture(5)]
    assert first[0].episode != second[0].episode
    assert recorder.manifest()["records"] == {"multi-turn": 2}


def test_pico_turns_are_left_out_as_a_whole_or_named(turns):
    root, rows = turns
    (root / "b 2.png").unlink()
    with pytest.raises(DataError, match=r"record 2: field '2': there is no file .*b 2\.png"):
        list(PicoBananaRecorder(root, "multi.jsonl").record())
    assert [len(episode) for episode in PicoBananaRecorder(root, "multi.jsonl", missing="skip").record()] == [2, 0]
    for changes in ({"files": rows[0]["files"][:2]}, {"metadata_edit_turn_prompts": None}):
        (root / "multi.jsonl").write_text(json.dumps(rows[0] | changes) + "\n")
        with pytest.raises(DataError, match="record 1: files must hold one image more than"):
            list(PicoBananaRecorder(root, "multi.jsonl").record())
    (root / "multi.jsonl").write_text(json.dumps(rows[0] | {"files": ["a", "b", "c"]}) + "\n")
    with pytest.raises(DataError, match="record 1, image 1: field 'url' must be text"):
        list(PicoBananaRecorder(root, "multi.jsonl").record())


def bytemorph(path, **changes):
    image = pa.array([{"bytes": picture(x), "path": None} for x in (0, 4)])
    columns = {
        "edit_type": ["0_camera_zoom", "2_object_motion"],
        "image_id": ["7", "7"],
        "src_img": image,
        "tgt_img": image.take([1, 0]),
        "edit_prompt": ["zoom in", "move left"],
        **changes,
    }
    pq.write_table(pa.table({name: value for name, value in columns.items() if value is not None}), path)


def test_bytemorph_is_a_test_split_by_type_of_motion(tmp_path):
    bytemorph(tmp_path / "test.parquet")
    options = ["--env.path", str(tmp_path / "test.parquet"), "--out", str(tmp_path / "out")]
    assert main(["record", "bytemorph", *options]) == 0
    table = read_transitions(tmp_path / "out")
    assert table.column("split") == ["test", "test"]
    assert table.column("episode") == ["0_camera_zoom/7", "2_object_motion/7"]
    assert (table[0].state, table[0].next_state, table[0].action) == (picture(0), picture(4), "zoom in")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["records"] == {"0_camera_zoom": 1, "2_object_motion": 1}


def test_bytemorph_with_other_columns_or_a_missing_target_is_refused(tmp_path):
    bytemorph(tmp_path / "a.parquet", edit_prompt=None)
    with pytest.raises(DataError, match="'edit_prompt'"):
        ByteMorphRecorder(tmp_path / "a.parquet")
    bytemorph(tmp_path / "b.parquet", tgt_img=pa.array([{"bytes": picture(), "path": None}, None]))
    with pytest.raises(DataError, match=r"row 2: field 'next_state' is missing"):
        ByteMorphRecorder(tmp_path / "b.parquet")
    bytemorph(tmp_path / "c.parquet", tgt_img=pa.array([picture(), b"broken"]))
    with pytest.raises(ImageError, match="row 2, column 'tgt_img': not a readable image"):
        list(ByteMorphRecorder(tmp_path / "c.parquet").record())
