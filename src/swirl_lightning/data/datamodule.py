"""TransitionDataModule: transitions of any world, split as the paper's protocol asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from swirl_lightning.data.loader import EpochLoader, Numbered, epoch_order, expected_work, labelled_batches, unlabelled_batches
from swirl_lightning.data.reader import Columns, TransitionTable, read_transitions
from swirl_lightning.data.splits import draw, given_splits, labelled_episodes, split_episodes
from swirl_lightning.data.stream import PairStream
from swirl_lightning.types import EpochPlan, Phase, Run, Splits, Transition, UnlabelledPair


class TransitionDataModule(L.LightningDataModule):
    """Labelled transitions for the warm-up, state-only pairs for SWIRL, held-out episodes for evaluation.

    Half of the training episodes keep their actions and serve the warm-up; the other half lose them and serve SWIRL
    (arXiv:2602.06130, protocol). Splits are by episode: as the column ``split`` says, or drawn from the seed.

    Args:
        path: Parquet or JSONL file, glob, folder written by ``swirl record``, or ``hub:owner/name[:split]``.
        columns: field (state, next_state, action, context, episode, step, split) to column name, where they differ;
            several columns are joined with ``/``, and null leaves a field unread.
        labelled_fraction: share of the training episodes that keep their actions. Episodes of which the data lack an
            action are not counted and are always for SWIRL.
        val_fraction: share of validation episodes, where the data have no splits; 0 goes without.
        test_fraction: share of test episodes, where the data have no splits.
        max_labelled: use at most so many labelled transitions, drawn from all labelled episodes.
        max_unlabelled: likewise, state-only pairs.
        max_val: likewise, validation transitions.
        max_test: likewise, test transitions.
        warmup_batch_size: transitions of a warm-up batch, over all processes.
        warmup_batches: batches of a warm-up epoch, after which evaluation and checkpoints come; the next epoch goes on where
            the last one stopped. None is one pass over the labelled transitions.
        batch_size: pairs (groups) of a SWIRL batch, over all processes.
        stream: state-only pairs that are read while training instead of those of ``path``, which may be more than memory
            holds: Parquet or JSONL file, glob or folder, or ``hub:owner/name[:split]``, with ``columns`` as for ``path``.
            Episodes that warm-up or evaluation know are passed over, and counted.
        stream_batches: batches of a SWIRL epoch from the stream; every epoch goes on where the last one stopped.
        stream_buffer: pairs of the stream among which the next one is drawn.
        replay_batch_size: labelled transitions beside every SWIRL batch, over all processes; 0 is the paper.
        eval_batch_size: transitions of an evaluation batch.
        seed: of splits and order.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, str | list[str] | None] | None = None,
        labelled_fraction: float = 0.5,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        max_labelled: int | None = None,
        max_unlabelled: int | None = None,
        max_val: int | None = None,
        max_test: int | None = None,
        warmup_batch_size: int = 32,
        warmup_batches: int | None = None,
        batch_size: int = 16,
        stream: str | None = None,
        stream_batches: int | None = None,
        stream_buffer: int = 1024,
        replay_batch_size: int = 0,
        eval_batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if warmup_batches is not None and warmup_batches < 1:
            raise ValueError(f"data.warmup_batches must be at least 1, got {warmup_batches}")
        if (stream is None) != (stream_batches is None) or (stream_batches is not None and stream_batches < 1):
            raise ValueError(
                f"data.stream needs data.stream_batches of at least 1, and the other way round; got {stream_batches}"
            )
        self.path, self.stream, self.stream_batches, self.stream_buffer = path, stream, stream_batches, stream_buffer
        self.columns: Columns = columns or {}
        self.labelled_fraction, self.val_fraction, self.test_fraction = labelled_fraction, val_fraction, test_fraction
        self.caps = {"labelled": max_labelled, "unlabelled": max_unlabelled, "val": max_val, "test": max_test}
        self.warmup_batch_size, self.warmup_batches, self.batch_size = warmup_batch_size, warmup_batches, batch_size
        self.replay_batch_size, self.eval_batch_size, self.seed = replay_batch_size, eval_batch_size, seed
        self.labelled: Sequence[Transition] = ()
        self.unlabelled: Sequence[UnlabelledPair] = ()
        self.val: Sequence[Transition] = ()
        self.test: Sequence[Transition] = ()
        self._pairs: Numbered[UnlabelledPair] = ()
        self._run: Run | None = None
        self._ready = False

    @override
    def setup(self, stage: str | None = None) -> None:
        """Reads, checks and splits everything, before training starts.

        Raises:
            FileNotFoundError: if the data are missing.
            ValueError: if a file, a field or a split is not as it should be; the message says where.
        """
        if self._ready:
            return
        table = read_transitions(self.path, self.columns)
        episodes, splits = table.column("episode"), table.column("split")
        _refuse_repeats(table, episodes)
        stateonly = {e for e, action in zip(episodes, table.column("action"), strict=True) if action is None}
        if any(split is not None for split in splits):
            assigned = given_splits(episodes, splits, table.where)
        else:
            assigned = dict.fromkeys(episodes, "train") | split_episodes(
                [episode for episode in episodes if episode not in stateonly],
                val_fraction=self.val_fraction,
                test_fraction=self.test_fraction,
                seed=self.seed,
            )
        known = {episode: split for episode, split in assigned.items() if episode not in stateonly}
        labelled = labelled_episodes(known, fraction=self.labelled_fraction, seed=self.seed)
        rows: dict[str, list[int]] = {"labelled": [], "unlabelled": [], "val": [], "test": []}
        for row, episode in enumerate(episodes):
            split = assigned[episode]
            rows["labelled" if episode in labelled else "unlabelled" if split == "train" else split].append(row)
        for name, indices in rows.items():
            cap = self.caps[name]
            if cap is not None:  # a spread over all episodes says more than a few whole ones
                indices.sort(key=lambda row: draw(self.seed, "cap", f"{episodes[row]}#{row}"))
                indices[:] = sorted(indices[:cap])
            indices.sort(key=lambda row: draw(self.seed, name, episodes[row]))  # stable: whole episodes, shuffled
        self.labelled = table.transitions(rows["labelled"])
        self.unlabelled = table.pairs(rows["unlabelled"] if self.stream is None else ())
        self.val = table.transitions(rows["val"])
        self.test = table.transitions(rows["test"])
        self._refuse_empty(
            val=stage == "validate" or (stage in (None, "fit") and self.val_fraction > 0),
            test=stage in ("test", "predict") or (stage is None and self.test_fraction > 0),
            **(self._read_by(frozenset(Phase)) if self.trainer is None and stage in (None, "fit") else {}),
        )
        rank_zero_info(
            f"{self.path}: {len(self.labelled)} labelled, {len(self.unlabelled)} state-only, {len(self.val)} validation, "
            f"{len(self.test)} test transitions of {len(assigned)} episodes"
            + (f"; state-only pairs of {self.stream} are read while training" if self.stream is not None else "")
        )
        self._pairs = self.unlabelled
        if self.stream is not None:
            read = {episode for episode, split in assigned.items() if split != "train" or episode in labelled}
            settings = {"seed": self.seed, "buffer": self.stream_buffer, "window": self.batch_size}
            self._pairs = PairStream(self.stream, self.columns, left_out=read, **settings)
            self._pairs.check()
        self._ready = True

    def connect(self, run: Run) -> Splits:
        """Learns what each epoch of a run reads; see ``RunData``."""
        self._run = run
        self._refuse_empty(**self._read_by(run.phases))
        return Splits(self.labelled, self.unlabelled, self.val, self.test, self.replay_batch_size)

    def _read_by(self, phases: frozenset[Phase]) -> dict[str, bool]:
        """Whether some phase reads the labelled transitions, and the state-only pairs of ``path``."""
        return {
            "labelled": Phase.WARMUP in phases or self.replay_batch_size > 0,
            "unlabelled": bool(phases - {Phase.WARMUP}) and self.stream is None,
        }

    def _refuse_empty(self, **wanted: bool) -> None:
        for split, read in wanted.items():
            if read and not getattr(self, split):
                setting = f"{split}_fraction" if split in ("val", "test") else "labelled_fraction"
                raise ValueError(
                    f"data: the {split} split of {self.path!r} is empty; change data.{setting}, add episodes, or "
                    "let data.columns: {split: null} ignore the data's own splits"
                )

    def _plan(self) -> EpochPlan:
        """What the trainer's current epoch reads."""
        if self._run is None:
            raise RuntimeError("nobody has said which phases the run has: its module must call connect(run) in its setup")
        assert self.trainer is not None
        return self._run.plan(self.trainer.current_epoch)

    def _warmup_order(self, epoch: int) -> list[int]:
        """Indices of an epoch out of the endless row of passes over the labelled transitions, each in an order of its own."""
        size = len(self.labelled)
        if self.warmup_batches is None:
            return epoch_order(size, self.seed, epoch)
        span = self.warmup_batches * self.warmup_batch_size
        first, last = epoch * span // size, ((epoch + 1) * span - 1) // size
        passes = [index for number in range(first, last + 1) for index in epoch_order(size, self.seed, number)]
        return passes[epoch * span - first * size :][:span]

    @override
    def train_dataloader(self) -> EpochLoader:
        trainer = self.trainer
        assert trainer is not None
        plan = self._plan()
        for name in ("warmup_batch_size", "batch_size"):
            if (size := getattr(self, name)) < trainer.world_size:
                rank_zero_warn(f"data.{name} is {size}, so {trainer.world_size - size} of {trainer.world_size} processes idle")
        epoch, place = trainer.current_epoch, {"rank": trainer.global_rank, "world_size": trainer.world_size}
        if plan.phase is Phase.WARMUP:
            order, make = self._warmup_order(epoch), labelled_batches(self.labelled)
            return self._epoch_loader(order, self.warmup_batch_size, make, self.labelled, 1)
        make = unlabelled_batches(self._pairs, self.labelled, self.replay_batch_size, self.seed, epoch, **place)
        return self._epoch_loader(self._swirl_order(plan), self.batch_size, make, self._pairs, plan.group_size)

    def _epoch_loader(
        self,
        order: Sequence[int],
        batch_size: int,
        make: Callable[[Sequence[int], int], Any],
        items: Numbered[UnlabelledPair | Transition],
        group_size: int,
    ) -> EpochLoader:
        trainer = self.trainer
        assert trainer is not None
        return EpochLoader(
            len(order),
            batch_size,
            make,
            order,
            cost=lambda number: expected_work(items[number], group_size),
            epoch=trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def _swirl_order(self, plan: EpochPlan) -> Sequence[int]:
        """Numbers of an epoch's pairs; out of a stream, those that follow the ones of the epoch before."""
        if self.stream_batches is None:
            assert self.trainer is not None
            return epoch_order(len(self.unlabelled), self.seed, self.trainer.current_epoch)
        size = self.stream_batches * self.batch_size
        return range(plan.number * size, (plan.number + 1) * size)

    def _in_order(self, items: Sequence[Transition]) -> EpochLoader:
        trainer = self.trainer
        assert trainer is not None
        return EpochLoader(
            len(items),
            self.eval_batch_size * trainer.world_size,
            lambda indices, batch: tuple(items[i] for i in indices),
            range(len(items)),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    @override
    def val_dataloader(self) -> EpochLoader:
        return self._in_order(self.val)

    @override
    def test_dataloader(self) -> EpochLoader:
        return self._in_order(self.test)

    @override
    def predict_dataloader(self) -> EpochLoader:
        return self._in_order(self.test)

    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # text; the module makes tensors


def _refuse_repeats(table: TransitionTable, episodes: Sequence[str]) -> None:
    seen: dict[tuple[str, int], int] = {}
    for row, key in enumerate(zip(episodes, table.column("step"), strict=True)):
        if key in seen:
            raise ValueError(
                f"{table.where(row)}: episode {key[0]!r} step {key[1]} was at {table.where(seen[key])} already; "
                "episode ids must be unique (data.columns: {episode: [task, variation]} joins columns, {step: null} counts "
                "steps)"
            )
        seen[key] = row
