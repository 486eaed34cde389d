"""Same seed, same machine: the same run, whatever ran before in the process."""

import torch

from swirl_lightning.cli import main
from tests.reliability.test_killed_evaluation import lines, scalars, state


def test_two_runs_of_one_seed_are_equal(config, tmp_path):
    runs = [tmp_path / name for name in ("one", "two")]
    for run in runs:
        torch.rand(7)  # what the process drew before must not matter
        assert main(config(run_dir=str(run))) == 0
    one, two = (state(run) for run in runs)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    for file in ("metrics.jsonl", "health.jsonl", "samples.jsonl"):
        assert lines(runs[0] / file) == lines(runs[1] / file)
    assert scalars(runs[0]) == scalars(runs[1])
