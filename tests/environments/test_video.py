"""Folders of videos, encoded here: what becomes a pair and what is left out, with its reason."""

import fractions
import json

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("PIL")

from swirl_lightning.cli import main  # noqa: E402
from swirl_lightning.codecs.image_pixels import load_rgb  # noqa: E402
from swirl_lightning.data import read_transitions  # noqa: E402
from swirl_lightning.environments.visual.video import VideoRecorder  # noqa: E402
from swirl_lightning.types import UnlabelledPair  # noqa: E402

NOISE = np.random.default_rng(0).integers(0, 2, (8, 8, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1) * 160 + 60


def moving(seconds, rate=10, times=None, ground=NOISE):
    """Frames (time, pixels) of a white bar that walks slowly over coloured blocks."""
    for k in range(int(seconds * rate)):
        frame = ground.copy()
        left = int(4 + 60 * k / max(1, seconds * rate))
        frame[:, left : left + 28] = 255
        yield (k / rate if times is None else times[k]), frame


def write(path, frames, codec="mpeg4", rate=10):
    """Encodes frames with their own times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.bit_rate = 8_000_000
        stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for time, pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def recorded(folder, **options):
    recorder = VideoRecorder(folder, size=64, **options)
    episodes = list(recorder.record())
    return recorder, [pair for episode in episodes for pair in episode]


def bar(image):
    """Where the white bar stands, in pixels of 64."""
    array = np.asarray(load_rgb(image)).astype(int)
    return float(np.median(np.argwhere((array > 235).all(-1))[:, 1]))


def test_pairs_are_about_six_seconds_apart_and_chain(tmp_path):
    write(tmp_path / "walk.mp4", moving(19))
    recorder, pairs = recorded(tmp_path)
    assert recorder.counts == {"pairs kept": 3}
    assert [pair.step for pair in pairs] == [0, 1, 2]
    assert {pair.episode for pair in pairs} == {"walk.mp4"}
    assert pairs[0].next_state == pairs[1].state
    assert [round(bar(p.next_state) - bar(p.state)) for p in pairs] == pytest.approx([12.6] * 3, abs=2)  # 60/19 * 6 * 64/96
    assert not hasattr(pairs[0], "action")
    assert recorded(tmp_path, max_pairs=1)[1] == pairs[:1]


def test_a_short_clip_gives_its_first_and_last_frame(tmp_path):
    write(tmp_path / "short.mp4", moving(2))
    _, pairs = recorded(tmp_path)
    assert len(pairs) == 1
    assert bar(pairs[0].next_state) - bar(pairs[0].state) > 30


def test_variable_frame_rate_is_read_by_the_frames_own_times(tmp_path):
    times = [*(k * 0.1 for k in range(60)), *(6 + k * 0.5 for k in range(1, 16))]  # ten frames a second, then two
    write(tmp_path / "variable.mkv", moving(7.5, times=times))
    _, pairs = recorded(tmp_path)
    assert len(pairs) == 2
    steps = [bar(p.next_state) - bar(p.state) for p in pairs]
    assert steps[0] > 3 * steps[1]  # sixty frames, then twelve


def test_what_is_left_out_is_counted_with_its_reason(tmp_path):
    still = NOISE.copy()
    write(tmp_path / "a_still.mp4", ((k / 10, still) for k in range(70)))
    write(tmp_path / "b_dark.mp4", moving(7, ground=NOISE * 0))
    cut = [(k / 10, NOISE if k < 30 else 255 - NOISE) for k in range(70)]
    write(tmp_path / "c_cut.mp4", cut)
    write(tmp_path / "d_one.mp4", moving(0.1))
    (tmp_path / "e_broken.mp4").write_bytes(b"not a video" * 100)
    (tmp_path / "f_empty.mp4").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no video")
    recorder, pairs = recorded(tmp_path)
    assert pairs == []
    assert recorder.counts == {
        "pairs left out: too similar": 1,
        "pairs left out: dark": 1,
        "pairs left out: shot cut": 1,
        "videos without two frames": 1,
        "videos unreadable": 2,
    }
    assert [line.split(":")[0] for line in recorder.manifest()["unreadable"]] == ["e_broken.mp4", "f_empty.mp4"]
    lenient, pairs = recorded(tmp_path, max_ssim=2.0, max_dark=2.0, max_jump=2.0)
    assert lenient.counts["pairs kept"] == len(pairs) == 3


def test_a_file_with_sound_only_is_named(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    recorder, _ = recorded(tmp_path)
    assert recorder.manifest()["unreadable"] == ["sound.mkv: no video stream"]


def test_recording_resumes_and_is_the_same_with_workers(tmp_path, monkeypatch):
    folder, work = tmp_path / "clips", tmp_path / "work"
    folder.mkdir()
    for name in ("a", "b"):
        write(folder / f"{name}.mp4", moving(7))
    _, pairs = recorded(folder, work=work)
    import swirl_lightning.environments.visual.video as video

    monkeypatch.setattr(video, "read_video", lambda *_: pytest.fail("a finished video was decoded again"))
    again, resumed = recorded(folder, work=work)
    assert resumed == pairs
    assert again.counts == {"pairs kept": 2}
    monkeypatch.undo()
    _, parallel = recorded(folder, workers=2)
    assert parallel == pairs


def test_videos_become_state_only_data(tmp_path):
    (tmp_path / "clips").mkdir()
    write(tmp_path / "clips" / "a.mp4", moving(7))
    assert main(["record", "video", "--env.folder", str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 0
    rows = list(read_transitions(tmp_path / "out"))
    assert all(isinstance(row, UnlabelledPair) for row in rows)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["video_counts"] == {"pairs kept": 1}


def test_a_folder_that_gives_no_pair_says_why(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    write(tmp_path / "clips" / "still.mp4", ((k / 10, NOISE) for k in range(70)))
    assert main(["record", "video", "--env.folder", str(tmp_path / "clips"), "--out", str(tmp_path / "out")]) == 1
    assert "'pairs left out: too similar': 1" in capsys.readouterr().err


def test_no_video_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no video below"):
        VideoRecorder(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        VideoRecorder(tmp_path / "nowhere")
