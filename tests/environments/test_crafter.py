"""Crafter, really played: pictures, actions in words, the same options give the same transitions."""

import io
from itertools import chain, pairwise

import numpy as np
import pytest

pytest.importorskip("crafter")
pytest.importorskip("PIL")

from PIL import Image

from swirl_lightning.cli import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.visual.crafter import CrafterRecorder

SHORT = {"n_episodes": 2, "max_steps": 15}
LONG = {"n_episodes": 1, "max_steps": 60}  # long enough for creatures to come and go


def test_transitions_are_pictures_that_follow_each_other():
    recorder = CrafterRecorder(**SHORT)
    episodes = list(recorder.record())
    assert len(episodes) == 2
    for transition in chain(*episodes):
        before, after = (np.asarray(Image.open(io.BytesIO(image))) for image in (transition.state, transition.next_state))
        assert before.shape == (64, 64, 3)
        assert (before != after).any()
    first = episodes[0]
    assert all(b.state == a.next_state for a, b in pairwise(first) if b.step == a.step + 1)
    assert {t.action for t in chain(*episodes)} <= {name.replace("_", " ") for name in _names()}
    manifest = recorder.manifest()
    assert manifest["steps"] == 30
    assert sum(map(len, episodes)) == 30 - manifest["no_ops"]


def _names():
    import crafter

    return crafter.Env().action_names


def test_the_same_options_give_the_same_transitions():
    once, again = (list(chain(*CrafterRecorder(**LONG).record())) for _ in range(2))
    assert once == again
    assert once != list(chain(*CrafterRecorder(**LONG, seed=1).record()))


def test_no_ops_are_kept_where_asked():
    kept = list(chain(*CrafterRecorder(**SHORT, no_ops="keep").record()))
    assert [t.step for t in kept] == [*range(15), *range(15)]


@pytest.mark.parametrize("options", [{"n_episodes": 0}, {"size": 4}, {"act": 1.5}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match="crafter: "):
        CrafterRecorder(**options)


def test_the_command_writes_images(tmp_path):
    assert main(["record", "crafter", "--out", str(tmp_path), "--env.n_episodes", "1", "--env.max_steps", "5"]) == 0
    assert isinstance(read_transitions(tmp_path)[0].state, bytes)
