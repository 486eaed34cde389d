"""Folders of images and videos are state-only data: an episode each."""

import io

import numpy as np
import pytest

pytest.importorskip("av")
image = pytest.importorskip("PIL.Image")

from swirl_lightning.data import TransitionDataModule, read_transitions  # noqa: E402
from swirl_lightning.data.video import VideoOptions  # noqa: E402
from tests.environments.test_video import moving, write  # noqa: E402


def picture(grey):
    out = io.BytesIO()
    image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(out, format="PNG")
    return out.getvalue()


@pytest.fixture
def frames(tmp_path):
    for episode, greys in (("one", (0, 0, 128, 255)), ("two", (10, 200))):
        (tmp_path / "frames" / episode).mkdir(parents=True)
        for number, grey in enumerate(greys):
            (tmp_path / "frames" / episode / f"{number:03d}.png").write_bytes(picture(grey))
    return tmp_path / "frames"


def test_a_folder_of_images_is_an_episode_a_folder(frames):
    table = read_transitions(frames, {"state": "what the columns of other data are called"})
    assert [(p.episode, p.step) for p in table] == [("one", 0), ("one", 1), ("one", 2), ("two", 0)]
    assert (table[1].state, table[1].next_state) == (picture(0), picture(128))
    assert [p.step for p in read_transitions(frames / "one" / "*.png", stride=3)] == [0]
    changed = read_transitions(frames, min_change=0.6)
    assert [(p.episode, p.step) for p in changed] == [("two", 0)]


def drawn(module):
    module.setup("fit")
    return [module._pairs[number] for number in range(2)]


@pytest.mark.parametrize("streamed", [False, True])
def test_videos_beside_labelled_images_follow_the_recorders_options(tmp_path, frames, streamed):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "videos").mkdir()
    write(tmp_path / "videos" / "walk.mp4", moving(7))
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    labelled = {"state": [picture(1)] * 4, "next_state": [picture(2)] * 4, "action": ["up"] * 4, "episode": list("abcd")}
    pq.write_table(pa.table(labelled), tmp_path / "log.parquet")
    options = {"video": VideoOptions(seconds=3.0, size=32), "val_fraction": 0.0, "test_fraction": 0.0}
    options |= {"stream_batches": 1, "batch_size": 2} if streamed else {}
    module = TransitionDataModule(str(tmp_path / "log.parquet"), state_only=str(tmp_path / "videos" / "*.mp4"), **options)
    with pytest.warns(UserWarning, match=r"broken\.mp4 cannot be read and is left out"):
        pairs = drawn(module)
    assert {(pair.episode, pair.step) for pair in pairs} == {("walk.mp4", 0), ("walk.mp4", 1)}
    assert len(module.labelled) == 4
