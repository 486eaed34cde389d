"""Mind2Web's released format: streaming, cutting, and what is wrong with files."""

import json
import tracemalloc

import pytest

pytest.importorskip("ijson")

from swirl_lightning.commands.record import main
from swirl_lightning.data.columns import DataError
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.web.mind2web import CUT, Mind2WebRecorder, cut_page
from tests.released import action, page, task


def recorded(tmp_path, tasks, **options):
    (tmp_path / "train_0.json").write_text(json.dumps(tasks))
    recorder = Mind2WebRecorder(**{"train": str(tmp_path / "train_*.json"), **options})
    return list(recorder.record()), recorder


def test_the_next_state_is_the_page_of_the_following_action(tmp_path):
    (episode,), recorder = recorded(tmp_path, [task("t", [action(k) for k in range(3)])])
    assert [t.state.count("Search 0") for t in episode] == [1, 0]
    assert episode[0].next_state == episode[1].state == "<html> <ul> </ul> <button> Search 1 </button> <ul> </ul> </html>"
    assert [t.action for t in episode] == ["[button] Search 0 -> TYPE: word 0", "[button] Search 1 -> TYPE: word 1"]
    assert episode[0].context == "shop: Find a \ufffd lamp \ufffd für mich"
    assert (episode[1].episode, episode[1].step) == ("train/t", 1)
    assert recorder.manifest()["recorder_counts"] == {"last actions, without a next page": 1}
    assert recorder.episodes() == 1


def test_pages_are_cut_around_the_element_and_it_is_reported(tmp_path):
    actions = [action(k, page(k, filler=400)) for k in range(3)]
    (episode,), recorder = recorded(tmp_path, [task("t", actions)], page_tokens=60)
    for t in episode:
        for state in (t.state, t.next_state):
            assert state.startswith(CUT)
            assert state.endswith(CUT)
            assert "<button> Search" in state
            assert "backend_node_id" not in state
            assert len(state.removeprefix(CUT).removesuffix(CUT).split()) <= 60
    counts = recorder.manifest()["recorder_counts"]
    assert counts["state: pages cut"] == counts["next state: pages cut"] == 2
    assert counts["state: characters cut"] > 20_000


def test_a_page_of_ten_megabytes():
    html = page(0, filler=120_000)
    assert len(html) > 9_000_000
    text, left_out = cut_page(html, "7", 200)
    assert "<button> Search 0 </button>" in text
    assert len(text) < 4000
    assert left_out > 9_000_000
    assert cut_page("<p backend_node_id='2'>" + "x " * 10_000_000, None, 50)[0].endswith(CUT)


def test_actions_that_point_at_no_element(tmp_path):
    actions = [action(0, node=None), action(1, node="99"), action(2), action(3)]
    (kept,), recorder = recorded(tmp_path, [task("t", actions)])
    assert len(kept) == 3
    assert kept[0].state.startswith("<html>")
    assert recorder.manifest()["recorder_counts"]["actions that point at no element"] == 2
    (dropped,), recorder = recorded(tmp_path, [task("t", actions)], no_element="drop")
    assert [t.step for t in dropped] == [2]
    assert recorder.manifest()["recorder_counts"]["actions that point at no element"] == 2


def test_control_characters_unicode_and_missing_wordings(tmp_path):
    html = '<p backend_node_id="7">a\x00b\x1b[0m \U0001f600 日本 <|im_end|> \ud7ff</p>'
    (episode,), _ = recorded(tmp_path, [task("t", [action(0, html), action(1)], action_reprs=[])])
    assert episode[0].state == "<p> a\ufffdb\ufffd[0m \U0001f600 日本 <|im_end|> \ud7ff </p>"
    assert episode[0].action == "[button] -> TYPE: word 0"


def test_empty_pages_are_counted(tmp_path):
    (episode,), recorder = recorded(tmp_path, [task("t", [action(0), action(1, " "), action(2), action(3)])])
    assert [t.step for t in episode] == [2]
    assert recorder.manifest()["recorder_counts"]["empty pages"] == 2


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task("t", []), task("t", [])], r"train_0.json, task 2: annotation_id of 'train/t' was at .*task 1 already"),
        ([task("t", None)], "task 1: field 'actions' must be a list, got NoneType"),
        ([task("t", [action(0), action(1, cleaned_html=3)])], "task 1, action 1: field 'cleaned_html' must be text, got int"),
        ([{"actions": []}], "task 1: field 'annotation_id' must be text, got NoneType"),
    ],
)
def test_bad_records_name_file_task_and_field(tmp_path, tasks, message):
    with pytest.raises(DataError, match=message):
        recorded(tmp_path, tasks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "record 1: lists and objects within each other, over 100 deep"),
        (b"{}", "must hold a JSON list .*an object"),
    ],
)
def test_files_that_hold_no_list_of_tasks(tmp_path, content, message):
    (tmp_path / "train_0.json").write_bytes(content)
    with pytest.raises(DataError, match=r"train_0.json.*" + message):
        list(Mind2WebRecorder(train=str(tmp_path)).record())


def test_a_truncated_file_is_named(tmp_path):
    whole = json.dumps([task("a", [action(0), action(1)]), task("b", [action(0), action(1)])])
    (tmp_path / "train_0.json").write_text(whole[:-200])
    episodes = Mind2WebRecorder(train=str(tmp_path)).record()
    assert len(next(episodes)) == 1
    with pytest.raises(DataError, match=r"train_0.json: malformed or cut off JSON after record 1"):
        next(episodes)
    with pytest.raises(FileNotFoundError, match=r"test.test_task: no file"):
        list(Mind2WebRecorder(train=str(tmp_path), test={"test_task": "nowhere/*.json"})._files())


def test_large_files_are_not_loaded_whole(tmp_path):
    file = tmp_path / "train_0.json"
    with file.open("w") as out:
        out.write("[")
        for k in range(40):
            one = task(f"t{k}", [action(i, page(i, filler=2000)) for i in range(4)])
            out.write(("," if k else "") + json.dumps(one))
        out.write("]")
    size = file.stat().st_size
    assert size > 25_000_000
    recorder = Mind2WebRecorder(train=str(file), page_tokens=100)
    tracemalloc.start()
    assert sum(len(episode) for episode in recorder.record()) == 120
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4


def test_record_command_takes_the_test_files_as_test_split(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.json").write_text(json.dumps([task("t0", [action(0), action(1)])]))
    (tmp_path / "train_0.json").write_text(json.dumps([task(f"t{k}", [action(0), action(1)]) for k in range(8)]))
    out = tmp_path / "out"
    options = ["--env.train", str(tmp_path / "train_0.json"), "--env.test", json.dumps({"test_task": str(tmp_path / "test")})]
    assert main(["mind2web", "--out", str(out), *options]) == 0
    table = read_transitions(out)
    assert {e for e, s in zip(table.column("episode"), table.column("split"), strict=True) if s == "test"} == {"test_task/t0"}
    assert len(table) == 9
