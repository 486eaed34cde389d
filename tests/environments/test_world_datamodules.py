"""A DataModule a world: it records what is missing, and refuses to mix."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

import swirl_lightning.environments as environments
from swirl_lightning.cli import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments import DoorKeyDataModule, WorldDataModule
from swirl_lightning.environments.recording.jobs import JOURNAL
from swirl_lightning.environments.registry import ENVIRONMENTS, load_recorder
from swirl_lightning.environments.text.doorkey import DoorKeyRecorder
from tests.environments.test_jobs import Countdown

SMALL = {"n_episodes": 12, "max_steps": 8}


@dataclass
class Counted(Countdown):
    """Counts how often it is run."""

    records: int = 0
    free_options = Countdown.free_options | {"records"}

    def record(self):
        self.records += 1
        return super().record()


def test_every_world_that_swirl_records_has_a_datamodule():
    recorders = {load_recorder(name) for name in ENVIRONMENTS}
    modules = [getattr(environments, name) for name in environments.__all__ if name != "WorldDataModule"]
    assert {kind.__name__ for kind in recorders} == {f"{kind.__name__.removesuffix('DataModule')}Recorder" for kind in modules}
    assert all(issubclass(kind, WorldDataModule) for kind in modules)


def test_the_recording_is_that_of_swirl_record(tmp_path):
    pytest.importorskip("minigrid")
    module = DoorKeyDataModule(DoorKeyRecorder(**SMALL), str(tmp_path / "a"), labelled_fraction=0.75)
    module.prepare_data()
    module.setup()
    options = [f"--env.{name}={value}" for name, value in SMALL.items()]
    assert main(["record", "doorkey", "--out", str(tmp_path / "b"), *options]) == 0
    for name in ("transitions.parquet", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(module.labelled) > len(module.unlabelled) > 0
    table = read_transitions(tmp_path / "b")
    held_out = {e for e, split in zip(table.column("episode"), table.column("split"), strict=True) if split == "test"}
    assert {t.episode for t in module.test} == held_out


def test_what_is_recorded_is_not_recorded_again(tmp_path):
    path = str(tmp_path / "world")
    for records in (1, 0):
        recorder = Counted(workers=1 + records)  # an option that changes nothing in the data
        WorldDataModule(recorder, path).prepare_data()
        assert recorder.records == records


def test_runs_that_begin_at_once_record_once(tmp_path):
    recorders = [Counted(), Counted()]
    modules = [WorldDataModule(recorder, str(tmp_path / "world")) for recorder in recorders]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda module: module.prepare_data(), modules))
    assert sorted(recorder.records for recorder in recorders) == [0, 1]


def test_an_interrupted_recording_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        WorldDataModule(Countdown(fail_after=4), str(tmp_path)).prepare_data()
    assert [file.name for file in tmp_path.iterdir()] == [JOURNAL]
    with pytest.raises(ValueError, match="an interrupted recording with other options"):
        WorldDataModule(Countdown(n=9), str(tmp_path)).prepare_data()
    second = Countdown()
    WorldDataModule(second, str(tmp_path)).prepare_data()
    assert second.ran == ["e/1", "e/0"]
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize(
    ("recorder", "options", "named"),
    [
        (Countdown(n=5), {}, "n was 6, now 5"),
        (Countdown(), {"val_fraction": 0.3}, "val_fraction was 0.1, now 0.3"),
        (Counted(), {}, "recorder was 'Countdown', now 'Counted'"),
    ],
)
def test_a_recording_with_other_options_is_refused(tmp_path, recorder, options, named):
    WorldDataModule(Countdown(), str(tmp_path)).prepare_data()
    before = (tmp_path / "transitions.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"give them as they were, or another data\.path to record anew") as refused:
        WorldDataModule(recorder, str(tmp_path), **options).prepare_data()
    assert named in str(refused.value)
    assert (tmp_path / "transitions.parquet").read_bytes() == before


def test_a_recording_without_its_options_is_refused_with_a_way_out(tmp_path):
    WorldDataModule(Countdown(), str(tmp_path)).prepare_data()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["options"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="class_path: TransitionDataModule"):
        WorldDataModule(Countdown(), str(tmp_path)).prepare_data()


def test_options_are_shown_and_set_from_yaml(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--data.help=DoorKeyDataModule"])
    shown = capsys.readouterr().out
    assert "--data.recorder.interact" in shown
    assert "Probability of acting on an object" in shown
    assert "--data.labelled_fraction" in shown
    settings = ["--data=DoorKeyDataModule", "--data.recorder.n_episodes=7", "--data.labelled_fraction=0.25"]
    with pytest.raises(SystemExit):
        main(["fit", *settings, "--model.world_model.base=x", "--print_config"])
    printed = capsys.readouterr().out
    assert re.search(r"class_path: swirl_lightning\.(environments\.)?DoorKeyDataModule$", printed, re.M)
    assert "n_episodes: 7" in printed


def test_a_recorder_of_ones_own_by_its_place(tmp_path, capsys):
    place = "tests.environments.test_jobs:Countdown"
    assert main(["record", place, "--out", str(tmp_path / "own"), "--env.n=3"]) == 0
    assert len(read_transitions(tmp_path / "own")) == 6
    assert main(["record", "no_such_package.world:Recorder", "--out", str(tmp_path / "none")]) == 1
    assert "no_such_package" in capsys.readouterr().err
