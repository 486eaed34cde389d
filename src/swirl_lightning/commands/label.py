"""``swirl label``: the IDM writes actions into state-only data, in the shape in which they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jsonargparse import auto_cli
from tqdm import tqdm

from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.commands.options import Columns, named_as, refuse_existing
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.commands.rewriting import Form, Rewriting
from swirl_lightning.data.columns import DataError
from swirl_lightning.types import Role


def label(
    file: str | list[str],
    idm: Path,
    out: Path,
    columns: Columns | None = None,
    action_pattern: str | None = None,
    actions: Literal["missing", "all"] = "missing",
    form: Form = "rows",
    overwrite: bool = False,
    batch_size: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Infer actions, and write the data with them.

    The rows come out as they went in, with the inferred action in its place and its log-probability beside it (nats, of the
    whole action; null where the action was there): a column, a field of each step, a list beside the list of states, or the
    assistant's turn of a chat.

    Args:
        file: Data, as `swirl fit` reads them: pairs, steps, trajectories or chats; a file, a glob, a folder, hub:...
        idm: IDM folder written by `swirl export`.
        out: What to write, by its ending: .jsonl, .json, .csv, .tsv (also .gz, .zst, .bz2), .parquet, or none for a folder that
            datasets.load_from_disk reads.
        columns: Names of your columns, e.g. ``{state: before, next_state: after}``; `swirl inspect FILE` guesses them. A
            column of actions that is not there is made.
        action_pattern: Regular expression with one group: the action, within what the column of actions holds.
        actions: Label the transitions whose action is missing, or all of them anew.
        form: ``rows`` as they came, or ``pairs``: state, next_state, action, context, episode, step, split, action_logprob.
        overwrite: Write over what is there.
        batch_size: Transitions per generation batch.
        temperature: 0 takes the most likely action; otherwise actions are sampled.
        seed: Seed of sampling.
    """
    refuse_existing(out, overwrite=overwrite)
    with named_as(path="FILE", state_only="another FILE"):
        rewriting = Rewriting(file, out, columns, action_pattern, form)
        rows = np.arange(len(rewriting.table)) if actions == "all" else rewriting.unlabelled
        if not len(rows):
            raise DataError(f"{rewriting.table.source}: every transition has an action; --actions all labels them anew")
    inference = inference_from_folders(None, idm)
    pairs = rewriting.table.pairs(rows.tolist())
    params = replace(inference.sampling[Role.IDM], temperature=temperature)
    inferred: list[str] = []
    logprobs: list[float] = []
    with tqdm(total=len(pairs), desc="label", unit="pair") as bar:
        for begin in range(0, len(pairs), batch_size):
            part = list(pairs[begin : begin + batch_size])
            drawn = [answers[0] for answers in inference.infer_actions(part, params=params, seed=seed)]
            inferred += drawn
            logprobs += inference.score_actions(part, drawn).logprobs.sum(-1).tolist()
            bar.update(len(part))
    written = rewriting.write(rows, inferred, logprobs)
    kept = len(rewriting.table) - len(rows)
    print(f"{len(rows):,} actions inferred, {kept:,} kept as they were; {written:,} {form} in {out}")
    if str(rewriting.report):
        print(rewriting.report)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(label, prog="swirl label", args=list(argv), as_positional=True, parser_class=Parser)
    return 0
