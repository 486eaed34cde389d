"""Splits by episode: no transition of a test episode is ever trained on, and no labelled episode is used unlabelled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from swirl_lightning.data.reader import TransitionTable
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


def given_splits(codes: Any, names: Sequence[str], splits: Sequence[str | None], where: Callable[[int], str]) -> dict[str, str]:
    """The split of every episode as the data say.

    Args:
        codes: number of the episode of every row, int64 [rows].
        names: of the episodes.
        splits: split of every row.
        where: place of a row, for messages.

    Returns:
        Episode to split.

    Raises:
        ValueError: for an unknown split, a missing one, or an episode in two splits.
    """
    assigned: dict[int, str] = {}
    for row, (episode, split) in enumerate(zip(codes.tolist(), splits, strict=True)):
        name = {"dev": "val", "validation": "val"}.get(split or "", split)
        if name not in SPLITS:
            raise ValueError(
                f"{where(row)}: field 'split' is {split!r}; expected one of {', '.join(SPLITS)} "
                "(data.columns: {split: null} ignores the column)"
            )
        if assigned.setdefault(episode, name) != name:
            raise ValueError(
                f"{where(row)}: episode {names[episode]!r} is in two splits, {assigned[episode]} and {name}; "
                "measures on held-out episodes would be worthless"
            )
    return {names[episode]: split for episode, split in assigned.items()}


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


def roles(
    table: TransitionTable, codes: Any, names: Sequence[str], *, fractions: Mapping[str, float], seed: int
) -> tuple[dict[str, Any], Any]:
    """Who reads which rows.

    Args:
        table: what ``data.path`` holds.
        codes: number of the episode of every row, int64 [rows].
        names: of the episodes.
        fractions: share of the episodes for ``val`` and ``test``, and of the others that keep their actions (``labelled``).
        seed: another seed, another assignment.

    Returns:
        Rows of labelled, unlabelled, val and test, int64 each; and which episodes are held out, bool [episodes].
    """
    has_action = np.asarray(table.table.column("action").is_valid())
    some_action = np.bincount(codes, has_action, len(names)) > 0
    splits = table.table.column("split")
    if splits.null_count < len(splits):
        assigned = given_splits(codes, names, splits.to_pylist(), table.where)
    else:
        labelled_at_all = [name for name, some in zip(names, some_action, strict=True) if some]
        assigned = dict.fromkeys(names, "train") | split_episodes(
            labelled_at_all, val_fraction=fractions["val"], test_fraction=fractions["test"], seed=seed
        )
    known = {name: assigned[name] for name, some in zip(names, some_action, strict=True) if some}
    labelled = labelled_episodes(known, fraction=fractions["labelled"], seed=seed)
    split = np.asarray([assigned[name] for name in names])
    keeps = np.asarray([name in labelled for name in names], bool)[codes] & has_action
    of = {name: (split == name)[codes] for name in SPLITS}
    if lacking := int((~of["train"] & ~has_action).sum()):
        rank_zero_warn(f"{table.source}: {lacking:,} rows of validation and test episodes have no action and are not used")
    rows = {"labelled": of["train"] & keeps, "unlabelled": of["train"] & ~keeps}
    rows |= {name: of[name] & has_action for name in ("val", "test")}
    return {name: np.flatnonzero(chosen) for name, chosen in rows.items()}, split != "train"


def refuse_repeats(codes: Any, names: Sequence[str], steps: Any, where: Callable[[int], str]) -> None:
    """Every step of an episode must be there once.

    Args:
        codes: number of the episode of every row, int64 [rows].
        names: of the episodes.
        steps: of every row, int64 [rows].
        where: place of a row, for messages.

    Raises:
        ValueError: naming both places of the first one that is there twice.
    """
    same = codes[1:] == codes[:-1]
    if len(codes) - same.sum() == len(names) and (np.diff(steps)[same] > 0).all():
        return  # each episode lies in one piece, in order: nothing to sort
    order = np.lexsort((steps, codes))  # stable: rows of one step stay in their order
    again = np.flatnonzero((np.diff(codes[order]) == 0) & (np.diff(steps[order]) == 0)) + 1
    if again.size:
        at = again[np.argmin(order[again])]
        row, earlier = int(order[at]), int(order[at - 1])
        raise ValueError(
            f"{where(row)}: episode {names[codes[row]]!r} step {steps[row]} was at {where(earlier)} already; "
            "episode ids must be unique (data.columns: {episode: [task, variation]} joins columns, {step: null} counts "
            "steps)"
        )


def in_episode_order(rows: Any, codes: Any, names: Sequence[str], *, seed: int, purpose: str, cap: int | None = None) -> Any:
    """Rows as whole episodes in an order of their own.

    Args:
        rows: int64 [n].
        codes: number of the episode of every row of the table.
        names: of the episodes.
        seed: another seed, another order.
        purpose: another purpose, another order.
        cap: at most so many, drawn from all episodes: a spread says more than a few whole ones.

    Returns:
        int64 [n or cap].
    """
    if cap is not None:
        chosen = sorted(rows.tolist(), key=lambda row: draw(seed, "cap", f"{names[codes[row]]}#{row}"))
        rows = np.asarray(sorted(chosen[:cap]), np.int64)
    present = np.unique(codes[rows])
    at = np.zeros(len(names))
    at[present] = [draw(seed, purpose, names[code]) for code in present]
    return rows[np.argsort(at[codes[rows]], kind="stable")]
