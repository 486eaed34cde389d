"""The callbacks that a run has by default leave nothing of theirs in the ones that a user names."""

import contextlib
import io

import pytest
import yaml

from swirl_lightning.cli import main


@pytest.mark.parametrize("before", [["RolloutSampler", "LatentActionHealth"], [], ["RolloutSampler"]])
def test_an_evaluation_of_ones_own_is_of_all_transitions(before, tmp_path):
    own = {"class_path": "BenchmarkEvaluation", "init_args": {"splits": ["test"]}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [*before, own, "ExportModels"]}}))
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        main(["fit", "--config", str(tmp_path / "own.yaml"), "--model.world_model.base=x", "--data.path=y", "--print_config"])
    callbacks = yaml.safe_load(shown.getvalue())["trainer"]["callbacks"]
    assert [each["class_path"].rpartition(".")[2] for each in callbacks] == [*before, "BenchmarkEvaluation", "ExportModels"]
    evaluation = callbacks[len(before)]["init_args"]
    assert (evaluation["splits"], evaluation["limit"]) == (["test"], None)
