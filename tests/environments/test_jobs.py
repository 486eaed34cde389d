"""Recording in jobs: order, interruption, other options; processes that do not answer."""

import json
import sys
import time
from dataclasses import dataclass

import pytest

from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.recording.jobs import JOURNAL, JobRecorder, JobResult
from swirl_lightning.environments.recording.record import record
from swirl_lightning.environments.recording.simulators import SimulatorError, SimulatorProcess, run_side_by_side
from swirl_lightning.types import Transition


@dataclass
class Countdown(JobRecorder):
    """Episodes that finish in reverse order; stops after some."""

    n: int = 6
    fail_after: int | None = None
    workers: int = 1
    free_options = frozenset({"workers", "fail_after"})

    def __post_init__(self):
        self.ran = []

    def jobs(self):
        return [f"e/{k}" for k in range(self.n)]

    def manifest(self):
        return {**self.options(), "recorder_counts": dict(self.counts)}

    def run(self, jobs):
        for done, job in enumerate(reversed(jobs)):
            if done == self.fail_after:
                raise KeyboardInterrupt
            self.ran.append(job)
            rows = [Transition(f"{job} \x00\u2028é", f"after {k}", "go", context="c", episode=job, step=k) for k in range(2)]
            yield job, JobResult(rows, {"no-ops": 1})


def test_episodes_come_out_in_the_order_of_the_jobs():
    recorder = Countdown()
    assert [episode[0].episode for episode in recorder.record()] == recorder.jobs()
    assert recorder.counts == {"no-ops": 6}


def test_an_interrupted_recording_goes_on_where_it_was(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    record(Countdown(), whole)
    with pytest.raises(KeyboardInterrupt):
        record(Countdown(fail_after=4), parts)
    with (parts / JOURNAL).open("ab") as file:
        file.write(b'{"job": "e/0", "rows": [["half a li')  # killed while it wrote
    second = Countdown()
    record(second, parts)
    assert second.ran == ["e/1", "e/0"]
    assert list(read_transitions(parts)) == list(read_transitions(whole))
    assert json.loads((parts / "manifest.json").read_text())["recorder_counts"] == {"no-ops": 6}
    assert not (parts / JOURNAL).exists()


def test_other_options_do_not_go_on_with_it(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        record(Countdown(fail_after=4), tmp_path)
    with pytest.raises(ValueError, match=r"differ in n\)"):
        record(Countdown(n=9), tmp_path)


def test_a_process_that_does_not_answer_is_stopped():
    process = SimulatorProcess([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], "sleeper", 0.5)

    def wake_up():
        with process.limit("wake up"):
            while line := process.stdout.readline():
                assert line == b"up\n"
            raise EOFError

    try:
        with pytest.raises(SimulatorError, match=r"sleeper: no answer for 0.5 s while it was to wake up.*env.timeout"):
            wake_up()
        assert process.process.wait(60) != 0
    finally:
        process.close()


def test_a_process_that_died_is_named():
    process = SimulatorProcess([sys.executable, "-c", "raise SystemExit(3)"], "quitter", 30)
    process.process.wait()
    with pytest.raises(SimulatorError, match="quitter: the simulator died with status 3"), process.limit("answer"):
        raise EOFError
    process.close()


def test_side_by_side_opens_as_many_as_needed_and_closes_all():
    opened = []

    class Fake:
        closed = False

        def close(self):
            self.closed = True

    def start():
        opened.append(Fake())
        return opened[-1]

    def run(simulator, job):
        assert not simulator.closed
        time.sleep(0.01)
        if job == "bad":
            raise ValueError("bad job")
        return job.upper()

    assert dict(run_side_by_side(list("abcdefgh"), start, run, 3)) == {c: c.upper() for c in "abcdefgh"}
    assert len(opened) <= 3
    with pytest.raises(ValueError, match="bad job"):
        list(run_side_by_side(["a", "bad", "c"], start, run, 2))
    assert all(fake.closed for fake in opened)
