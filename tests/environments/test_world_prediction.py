"""WorldPrediction-Bench in its published layout: which frame a plan starts from, what is done, and what may be wrong."""

import io
import json

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("PIL")

from PIL import Image

from swirl_lightning.data.columns import DataError
from swirl_lightning.environments.visual.world_prediction import frame_at, read_plans
from tests.environments.test_video import write


def segment(start, end, action, video="one.mp4"):
    return {"video": video, "segment_start_time": start, "segment_end_time": end, "action_label": action, "action_uid": action}


def sample(**changes):
    segments = {"a": segment(0, 1, "open"), "b": segment(1, 2, "pour"), "c": segment(2, 3, "close")}
    return {"ground_truth": 2, "candidates": [["c", "a"], ["b", "c", "a"]], "action_segments": segments, **changes}


@pytest.fixture
def bench(tmp_path):
    """A file with samples of a data set, and a video whose brightness is 80 times its second."""

    def make(**samples):
        (tmp_path / "videos" / "COIN").mkdir(parents=True, exist_ok=True)
        write(tmp_path / "videos" / "COIN" / "one.mp4", [(t / 10, np.full((96, 96, 3), 8 * t)) for t in range(30)])
        (tmp_path / "bench.json").write_text(json.dumps({"COIN": samples}))
        return tmp_path / "bench.json"

    return make


def test_a_plan_starts_in_the_middle_of_its_first_segment(bench):
    (plan,), counts = read_plans(bench(s1=sample()), turns=2)
    assert (plan.dataset, plan.sample, plan.seconds, plan.actions) == ("COIN", "s1", 1.5, ("pour", "close"))
    assert not counts
    shown = np.asarray(Image.open(io.BytesIO(frame_at(plan.video, plan.seconds))))
    assert abs(float(shown.mean()) - 8 * 15) < 6
    assert abs(float(np.asarray(Image.open(io.BytesIO(frame_at(plan.video, 99.0)))).mean()) - 8 * 29) < 6  # the last one


def test_missing_videos_are_an_error_or_counted(bench):
    elsewhere = sample(action_segments=dict.fromkeys("abc", segment(0, 1, "open", "two.mp4")))
    file = bench(s1=sample(), s2=elsewhere)
    with pytest.raises(FileNotFoundError, match=r"COIN, s2: there is no video .*two\.mp4 \(--missing skip\)"):
        read_plans(file, 6)
    plans, counts = read_plans(file, 6, "skip")
    assert [plan.sample for plan in plans] == ["s1"]
    assert counts == {"COIN: samples without video": 1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ground_truth": 3}, "COIN, s1: ground_truth is 3, but there are 2 candidates, counted from 1"),
        ({"candidates": [["x"], ["y"]]}, "COIN, s1: KeyError: 'y' is missing"),
        ({"candidates": [["x"], []]}, "COIN, s1: IndexError"),
        ({"action_segments": None}, "COIN, s1: TypeError"),
    ],
)
def test_what_is_wrong_is_named_with_its_sample(bench, changes, says):
    with pytest.raises(DataError, match=says):
        read_plans(bench(s1=sample(**changes)), 6)


def test_files_that_are_none(tmp_path):
    (tmp_path / "bench.json").write_text("[")
    with pytest.raises(DataError, match="malformed JSON"):
        read_plans(tmp_path / "bench.json", 6)
    (tmp_path / "bench.json").write_text('{"COIN": []}')
    with pytest.raises(DataError, match="COIN: must be an object, got list"):
        read_plans(tmp_path / "bench.json", 6)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="not a readable video"):
        frame_at(tmp_path / "no.mp4", 1.0)
