"""Ends a job when one of its ranks has failed or is gone, instead of leaving the others waiting for it. Plain torch."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from itertools import count

import torch.distributed as dist
from typing_extensions import override

from swirl_lightning.distributed.parent import watched
from swirl_lightning.internals import default_store

_DONE = b"done"
_runs = count()  # ranks start their watches in the same order, so the number names one run on all of them


class StoppedAloneError(SystemExit):
    """The end of a rank that was told to stop, and cannot say whether others were, too."""

    @override
    def __str__(self) -> str:
        return "told to stop, everything is saved"


class RankWatch:
    """A thread on every rank that tells the others, through the job's store, that this one lives, and listens for them.

    A rank that waits in a collective operation for one that has left it would wait for as long as the backend allows, half
    an hour by default. With a watch it ends within seconds of another rank's :meth:`fail`, and within ``silence`` of a death
    without a word. What it ends is the process, from the thread: the main thread hangs in the backend's C++.

    Rank 0 listens for all, the others for rank 0 and for what it or a failed rank has to say.

    Args:
        store: the job's, with a connection of its own: a wait on a shared one would silence this rank.
        rank: this process.
        ranks: number of processes.
        period: seconds between two looks.
        silence: seconds without a sign of life after which a rank counts as gone. Looks are counted, not the clock, so that
            a job that was suspended as a whole goes on.
        grace: seconds in which a rank may show an error of its own before it ends over another's.
    """

    def __init__(
        self, store: dist.Store, rank: int, ranks: int, *, period: float = 1.0, silence: float = 40.0, grace: float = 2.0
    ) -> None:
        self._store, self._rank, self._ranks = store, rank, ranks
        self._period, self._patience, self._grace = period, int(silence / period), grace
        self._others = [r for r in range(ranks) if r != rank] if rank == 0 else [0]
        self._heard = dict.fromkeys(self._others, (b"", 0))  # what a rank said last, and looks since it said something new
        self._stopped = threading.Event()
        store.set_timeout(timedelta(seconds=silence))
        self._thread = threading.Thread(target=self._run, daemon=True, name="rank-watch")
        self._thread.start()

    def fail(self, error: BaseException) -> None:
        """Tells all ranks that this one fails. Shows the error of a rank that failed before, of which this may be the echo."""
        told = isinstance(error, StoppedAloneError)
        message = f"rank {self._rank} " + (f"was {error}" if told else f"failed: {type(error).__name__}: {error}")
        self._stop()
        with suppress(RuntimeError):  # the store is gone, and rank 0 with it: the caller shows its own error
            first = self._store.compare_set("failed", "", message).decode()
            if first != message and not told:
                print(f"swirl: error: {first}", file=sys.stderr, flush=True)
            if self._rank:
                self._store.set(str(self._rank), _DONE.decode())
            for _ in range(100):  # rank 0 may keep the store: the others must have read it
                if self._all_done():
                    break
                time.sleep(0.1)

    def leave(self) -> None:
        """This rank's work is done; rank 0, which may keep the store, goes last."""
        if self._stopped.is_set():
            return
        with suppress(RuntimeError):  # the store is gone: rank 0 was killed after its work
            if self._rank:
                self._stop()
                self._store.set(str(self._rank), _DONE.decode())
            while not self._all_done():  # goes on listening
                time.sleep(0.05)
        self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _all_done(self) -> bool:
        """Whether nobody needs this rank any more."""
        return self._rank > 0 or all(self._status(rank) == _DONE for rank in self._others)

    def _status(self, rank: int) -> bytes:
        key = str(rank)
        return self._store.get(key) if self._store.check([key]) else b""

    def _run(self) -> None:
        beat = 0
        while not self._stopped.wait(self._period):
            beat += 1
            try:
                self._store.set(str(self._rank), str(beat))
                why = self._look()
            except RuntimeError as error:
                why = f"rank 0, or what keeps the ranks together, is gone ({str(error).splitlines()[0]})"
            if why and not self._stopped.wait(self._grace):
                self._end(why)

    def _look(self) -> str | None:
        """What ends the job, if anything."""
        if self._store.check(["failed"]):
            return self._store.get("failed").decode()
        for rank, (before, looks) in self._heard.items():
            status = self._status(rank)
            self._heard[rank] = (status, 0 if status != before or status == _DONE else looks + 1)
            if looks >= self._patience:
                gone = f"rank {rank} is gone: no sign of life for {self._patience * self._period:.0f} s"
                return self._store.compare_set("failed", "", gone).decode()
        return None

    def _end(self, why: str) -> None:
        print(f"swirl: error: {why}; rank {self._rank} ends, too", file=sys.stderr, flush=True)
        with suppress(RuntimeError):  # rank 0 is gone
            self._store.set(str(self._rank), _DONE.decode())
        sys.stdout.flush()
        os._exit(1)


def watch_ranks() -> RankWatch | None:
    """Starts to watch the ranks of this job; None in a job of one."""
    watched.set()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    store = dist.PrefixStore(f"swirl-watch-{next(_runs)}", default_store().clone())  # type: ignore[attr-defined]  # not in the stub
    return RankWatch(store, dist.get_rank(), dist.get_world_size())
