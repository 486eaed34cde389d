"""Splits are by episode, cover everything, and do not depend on the order of the rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_lightning.data.splits import labelled_episodes, split_episodes

EPISODES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)


@given(EPISODES, st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_every_episode_has_one_split_whatever_the_order(episodes, seed, random):
    options = {"val_fraction": 0.2, "test_fraction": 0.3, "seed": seed}
    assigned = split_episodes(episodes, **options)
    assert set(assigned) == set(episodes)
    assert set(assigned.values()) <= {"train", "val", "test"}
    shuffled = episodes * 2
    random.shuffle(shuffled)
    assert split_episodes(shuffled, **options) == assigned


@given(EPISODES, EPISODES, st.integers(0, 2**31))
def test_new_episodes_never_move_an_old_one_into_another_split(old, new, seed):
    options = {"val_fraction": 0.2, "test_fraction": 0.3, "seed": seed}
    before, after = split_episodes(old, **options), split_episodes(old + new, **options)
    assert all(after[episode] == split for episode, split in before.items())


@given(EPISODES, st.floats(0, 1), st.integers(0, 2**31))
def test_labelled_episodes_are_a_share_of_the_training_episodes(episodes, fraction, seed):
    assigned = split_episodes(episodes, val_fraction=0.2, test_fraction=0.2, seed=seed)
    train = {episode for episode, split in assigned.items() if split == "train"}
    labelled = labelled_episodes(assigned, fraction=fraction, seed=seed)
    assert labelled <= train
    assert len(labelled) == round(fraction * len(train))
    assert labelled == labelled_episodes(dict(reversed(assigned.items())), fraction=fraction, seed=seed)


def test_fractions_are_met_on_average_and_the_seed_matters():
    episodes = [f"e{i}" for i in range(4000)]
    assigned = split_episodes(episodes, val_fraction=0.1, test_fraction=0.2, seed=0)
    shares = {split: list(assigned.values()).count(split) / 4000 for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.03)
    assert assigned != split_episodes(episodes, val_fraction=0.1, test_fraction=0.2, seed=1)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5)])
def test_fractions_that_leave_no_training_data_are_refused(val, test):
    with pytest.raises(ValueError, match="add up to less than 1"):
        split_episodes(["a"], val_fraction=val, test_fraction=test, seed=0)
