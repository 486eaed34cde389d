"""TransitionDataModule: transitions of any world, split as the paper's protocol asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from swirl_lightning.data.loader import (
    EpochLoader,
    Numbered,
    Passes,
    epoch_order,
    expected_work,
    unlabelled_batches,
    warmup_batches,
)
from swirl_lightning.data.overlap import Overlap, with_state_only
from swirl_lightning.data.reader import TransitionTable, read_mapped
from swirl_lightning.data.reading import Mapping
from swirl_lightning.data.splits import in_episode_order, refuse_repeats, roles
from swirl_lightning.data.stream import PairStream
from swirl_lightning.data.video import VideoOptions
from swirl_lightning.types import EpochPlan, Phase, Run, Splits, Transition, UnlabelledPair


class TransitionDataModule(L.LightningDataModule):
    """Labelled transitions for the warm-up, state-only pairs for SWIRL, held-out episodes for evaluation.

    With ``path`` alone, half of the training episodes keep their actions and serve the warm-up; the other half lose them and
    serve SWIRL (arXiv:2602.06130, protocol). With ``state_only`` beside it, all of ``path`` keep theirs. Splits are by
    episode: as the column ``split`` says, or drawn from the seed. A row without an action is state-only, whatever its episode.

    Args:
        path: Labelled data: a file (Parquet, JSON, JSONL, CSV, TSV, compressed or not), a glob, a folder, a data set saved to
            disk, or ``hub:owner/name[[:config]:split]``; or a list of them. Rows are pairs, steps, trajectories or chats.
        columns: Field (state, next_state, action, context, episode, step, split, done, messages) to column, where they
            differ: dotted paths into objects and lists; several columns of an episode are joined with ``/``; null leaves a
            field unread.
        state_only: State-only data, likewise; also images (a folder an episode) and videos. Actions in them are not read.
        state_only_columns: As ``columns``, where they are others; by default the same ones, without action.
        action_pattern: Regular expression with one group, the action within what the action's column or turn holds.
        stride: Stride of state-only states in a row: steps between the two states of a pair.
        min_change: Leave out state-only pairs of which a smaller share changes; anything above 0 leaves out equal ones.
        video: Which frames of state-only videos become pairs.
        labelled_fraction: Share of the training episodes that keep their actions; by default all with ``state_only``, half
            without. Episodes without any action are not counted and are always for SWIRL.
        val_fraction: Share of validation episodes, where the data have no splits; 0 goes without.
        test_fraction: Share of test episodes, where the data have no splits.
        max_labelled: Use at most so many labelled transitions, drawn from all labelled episodes.
        max_unlabelled: Use at most so many state-only pairs, drawn likewise.
        max_val: Use at most so many validation transitions, drawn likewise.
        max_test: Use at most so many test transitions, drawn likewise.
        warmup_batch_size: Transitions of a warm-up batch, over all processes.
        warmup_batches: Batches of a warm-up epoch, after which evaluation and checkpoints come; the next epoch goes on where
            the last one stopped. None is one pass over the labelled transitions.
        batch_size: Pairs (groups) of a SWIRL batch, over all processes.
        swirl_batches: Batches of a SWIRL epoch, which goes on where the last one stopped: so the models judge pairs that they
            have not learned from yet. None is one pass over the state-only pairs.
        stream_batches: Batches of a SWIRL epoch; ``state_only`` is then read while training, for more than memory and disk
            hold, and every epoch goes on where the last one stopped. None reads it before.
        stream_buffer: Pairs of the stream among which the next one is drawn.
        replay_batch_size: Labelled transitions beside every SWIRL batch, over all processes; 0 is the paper.
        eval_batch_size: Transitions of an evaluation batch.
        seed: Seed of splits and order.
        stream: This was the name of ``state_only`` with ``stream_batches``.
    """

    def __init__(
        self,
        path: str | list[str],
        columns: dict[str, str | list[str] | None] | None = None,
        state_only: str | list[str] | None = None,
        state_only_columns: dict[str, str | list[str] | None] | None = None,
        action_pattern: str | None = None,
        stride: int = 1,
        min_change: float = 0.0,
        video: VideoOptions | None = None,
        labelled_fraction: float | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        max_labelled: int | None = None,
        max_unlabelled: int | None = None,
        max_val: int | None = None,
        max_test: int | None = None,
        warmup_batch_size: int = 32,
        warmup_batches: int | None = None,
        batch_size: int = 16,
        swirl_batches: int | None = None,
        stream_batches: int | None = None,
        stream_buffer: int = 1024,
        replay_batch_size: int = 0,
        eval_batch_size: int = 64,
        seed: int = 0,
        stream: str | None = None,
    ) -> None:
        super().__init__()
        least = {"warmup_batch_size": 1, "batch_size": 1, "eval_batch_size": 1, "replay_batch_size": 0}
        least |= {"warmup_batches": 1, "swirl_batches": 1}
        given = (warmup_batch_size, batch_size, eval_batch_size, replay_batch_size, warmup_batches, swirl_batches)
        for (name, lowest), size in zip(least.items(), given, strict=True):
            if size is not None and size < lowest:
                raise ValueError(f"data.{name} must be at least {lowest}, got {size}")
        if swirl_batches is not None and stream_batches is not None:
            raise ValueError(
                "data.swirl_batches and stream_batches both say how long a SWIRL epoch is: of a stream, the latter"
            )
        if stream is not None:
            raise ValueError(f"data.stream is data.state_only now: write state_only: {stream}, and keep stream_batches")
        if stream_batches is not None and (state_only is None or stream_batches < 1):
            raise ValueError(f"data.stream_batches must be at least 1 and needs data.state_only, got {stream_batches}")
        self.path, self.state_only, self.stream_batches, self.stream_buffer = path, state_only, stream_batches, stream_buffer
        self.mapping = Mapping(columns or {}, action_pattern=action_pattern)
        columns = {"action": None, **{name: column for name, column in (columns or {}).items() if name != "action"}}
        self.state_only_mapping = Mapping(
            columns if state_only_columns is None else state_only_columns,
            actions=False,
            stride=stride,
            min_change=min_change,
            video=video or VideoOptions(),
            option="data.state_only_columns",
        )
        self.labelled_fraction = (0.5 if state_only is None else 1.0) if labelled_fraction is None else labelled_fraction
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.caps = {"labelled": max_labelled, "unlabelled": max_unlabelled, "val": max_val, "test": max_test}
        self.warmup_batch_size, self.warmup_batches, self.batch_size = warmup_batch_size, warmup_batches, batch_size
        self.swirl_batches = swirl_batches
        self.replay_batch_size, self.eval_batch_size, self.seed = replay_batch_size, eval_batch_size, seed
        self.labelled: Sequence[Transition] = ()
        self.unlabelled: Sequence[UnlabelledPair] = ()
        self.val: Sequence[Transition] = ()
        self.test: Sequence[Transition] = ()
        self._pairs: Numbered[UnlabelledPair] = ()
        self._run: Run | None = None
        self._ready = self._actions = False

    @override
    def setup(self, stage: str | None = None) -> None:
        """Reads, checks and splits everything, before training starts.

        Raises:
            FileNotFoundError: if the data are missing.
            ValueError: if a file, a field or a split is not as it should be; the message says where.
        """
        if self._ready:
            return
        table = read_mapped(self.path, self.mapping)
        codes, names = table.codes("episode")
        refuse_repeats(codes, names, np.asarray(table.table.column("step")), table.where)
        fractions = {name: getattr(self, f"{name}_fraction") for name in ("labelled", "val", "test")}
        rows, held_out = roles(table, codes, names, fractions=fractions, seed=self.seed)
        chosen = {name: self._chosen(name, rows[name], codes, names) for name in ("labelled", "val", "test")}
        self.labelled, self.val, self.test = (table.transitions(part) for part in chosen.values())
        self.unlabelled = self._pairs = table.pairs(self._chosen("unlabelled", rows["unlabelled"], codes, names))
        if self.state_only is not None:
            overlap = Overlap(table.table, codes, names, held_out, named=table.own_episodes)
            self._read_state_only(self.state_only, table, rows["unlabelled"], overlap)
        self._actions = bool(table.table.column("action").null_count < len(table))
        self._refuse_empty(
            val=stage == "validate" or (stage in (None, "fit") and self.val_fraction > 0),
            test=stage in ("test", "predict") or (stage is None and self.test_fraction > 0),
            **(self._read_by(frozenset(Phase)) if self.trainer is None and stage in (None, "fit") else {}),
        )
        rank_zero_info(
            f"{table.source}: {len(self.labelled):,} labelled, {len(self.unlabelled):,} state-only, "
            f"{len(self.val):,} validation, {len(self.test):,} test transitions of {len(names):,} episodes"
            + ("" if self.stream_batches is None else f"; state-only pairs of {self.state_only} are read while training")
        )
        self._ready = True

    def _read_state_only(self, path: str | list[str], table: TransitionTable, rows: Any, overlap: Overlap) -> None:
        """Adds what ``state_only`` holds to the state-only rows of ``path``; out of a stream it comes while training."""
        if self.stream_batches is None:
            more = read_mapped(path, self.state_only_mapping)
            both, pairs = with_state_only(table, rows, more, overlap)
            self.unlabelled = self._pairs = both.pairs(self._chosen("unlabelled", pairs, *both.codes("episode")))
            return
        settings = {"seed": self.seed, "buffer": self.stream_buffer, "window": max(self.batch_size, self.warmup_batch_size)}
        stream = PairStream(path, self.state_only_mapping, overlap=overlap, beside=self.unlabelled, **settings)
        stream.check()
        self._pairs = stream

    def first_state_only(self, count: int) -> Sequence[UnlabelledPair]:
        """State-only pairs to look at: all of them, or the first ones of a stream."""
        return self._pairs.first(count) if isinstance(self._pairs, PairStream) else self.unlabelled

    def _chosen(self, name: str, rows: Any, codes: Any, names: Sequence[str]) -> Any:
        return in_episode_order(rows, codes, names, seed=self.seed, purpose=name, cap=self.caps[name])

    def connect(self, run: Run) -> Splits:
        """Learns what each epoch of a run reads; see ``RunData``."""
        self._run = run
        self._refuse_empty(**self._read_by(run.phases, state_only=run.plan(0).state_only))
        return Splits(self.labelled, self.unlabelled, self.val, self.test, self.replay_batch_size)

    def _read_by(self, phases: frozenset[Phase], *, state_only: bool = False) -> dict[str, bool]:
        """Whether some phase reads the labelled transitions, and the state-only pairs that are there already."""
        return {
            "labelled": Phase.WARMUP in phases or self.replay_batch_size > 0,
            "unlabelled": (state_only or bool(phases - {Phase.WARMUP})) and self.stream_batches is None,
        }

    def _refuse_empty(self, **wanted: bool) -> None:
        for split, read in wanted.items():
            if read and not getattr(self, split):
                if not self._actions and split != "unlabelled":
                    raise ValueError(
                        f"data: no row of {self.path!r} has an action, so its {split} split is empty; give it as "
                        "data.state_only and labelled data as data.path, or map them: data.columns: {action: YOUR_COLUMN}"
                    )
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

    def _order(self, size: int, span: int | None, number: int) -> list[int]:
        """Indices of the epoch ``number`` out of endless passes over ``size`` rows, each pass in an order of its own."""
        if span is None:
            return epoch_order(size, self.seed, number)
        first, last = number * span // size, ((number + 1) * span - 1) // size
        passes = [index for n in range(first, last + 1) for index in epoch_order(size, self.seed, n)]
        return passes[number * span - first * size :][:span]

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
            size = self.warmup_batch_size
            order = self._order(len(self.labelled), self.warmup_batches and self.warmup_batches * size, epoch)
            pairs = self._endless_pairs() if plan.state_only else None
            make = warmup_batches(self.labelled, pairs, size, plan.number * -(-len(order) // size) * size, **place)
            return self._epoch_loader(order, size, make, self.labelled, plan)
        make = unlabelled_batches(self._pairs, self.labelled, self.replay_batch_size, self.seed, epoch, **place)
        return self._epoch_loader(self._swirl_order(plan), self.batch_size, make, self._pairs, plan)

    def _epoch_loader(
        self,
        order: Sequence[int],
        batch_size: int,
        make: Callable[[Sequence[int], int], Any],
        items: Numbered[UnlabelledPair | Transition],
        plan: EpochPlan,
    ) -> EpochLoader:
        trainer = self.trainer
        assert trainer is not None
        return EpochLoader(
            len(order),
            batch_size,
            make,
            order,
            cost=lambda number: expected_work(items[number], plan.group_size),
            epoch=trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            ahead=plan.ahead,
        )

    def _endless_pairs(self) -> Numbered[UnlabelledPair]:
        return self._pairs if self.stream_batches is not None else Passes(self.unlabelled, self.seed + 2)

    def _swirl_order(self, plan: EpochPlan) -> Sequence[int]:
        """Numbers of an epoch's pairs; out of a stream, those that follow the ones of the epoch before."""
        if self.stream_batches is None:
            assert self.trainer is not None
            if self.swirl_batches is None:
                return epoch_order(len(self.unlabelled), self.seed, self.trainer.current_epoch)
            return self._order(len(self.unlabelled), self.swirl_batches * self.batch_size, plan.number)
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
