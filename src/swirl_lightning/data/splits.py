"""Splits by episode: no transition of a test episode is ever trained on, and no labelled episode is used unlabelled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from swirl_lightning.data.schema import SPLITS


def draw(seed: int, purpose: str, episode: str) -> float:
    """A number in [0, 1) that depends on seed, purpose and episode only: adding episodes moves no other."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{episode}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def split_episodes(episodes: Sequence[str], *, val_fraction: float, test_fraction: float, seed: int) -> dict[str, str]:
    """Assigns every episode to ``train``, ``val`` or ``test``.

    Args:
        episodes: ids, repeated or not.
        val_fraction: expected share of validation episodes.
        test_fraction: expected share of test episodes.
        seed: another seed, another assignment.

    Returns:
        Episode to split.

    Raises:
        ValueError: if the fractions leave nothing to train on.
    """
    if val_fraction < 0 or test_fraction < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(
            f"data: val_fraction={val_fraction} and test_fraction={test_fraction} must be >= 0 and add up to less than 1"
        )
    assigned = {}
    for episode in dict.fromkeys(episodes):
        at = draw(seed, "split", episode)
        assigned[episode] = "test" if at < test_fraction else "val" if at < test_fraction + val_fraction else "train"
    return assigned


def given_splits(episodes: Sequence[str], splits: Sequence[str | None], where: Callable[[int], str]) -> dict[str, str]:
    """The split of every episode as the data say.

    Args:
        episodes: episode of every row.
        splits: split of every row.
        where: place of a row, for messages.

    Returns:
        Episode to split.

    Raises:
        ValueError: for an unknown split, a missing one, or an episode in two splits.
    """
    assigned: dict[str, str] = {}
    for row, (episode, split) in enumerate(zip(episodes, splits, strict=True)):
        name = {"dev": "val", "validation": "val"}.get(split or "", split)
        if name not in SPLITS:
            raise ValueError(
                f"{where(row)}: field 'split' is {split!r}; expected one of {', '.join(SPLITS)} "
                "(data.columns: {split: null} ignores the column)"
            )
        if assigned.setdefault(episode, name) != name:
            raise ValueError(
                f"{where(row)}: episode {episode!r} is in two splits, {assigned[episode]} and {name}; "
                "measures on held-out episodes would be worthless"
            )
    return assigned


def labelled_episodes(assigned: Mapping[str, str], *, fraction: float, seed: int) -> set[str]:
    """Training episodes whose actions the warm-up may see; the others are used without actions.

    Args:
        assigned: episode to split.
        fraction: share of the training episodes, rounded; the paper's protocol takes one half.
        seed: another seed, another half.

    Returns:
        Ids of labelled training episodes.

    Raises:
        ValueError: if the fraction is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"data.labelled_fraction must lie in [0, 1], got {fraction}")
    train = sorted((e for e, split in assigned.items() if split == "train"), key=lambda e: draw(seed, "labelled", e))
    return set(train[: round(fraction * len(train))])
