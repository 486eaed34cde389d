"""Ends a rank whose launcher is gone. Imports nothing slow, so that it listens from a rank's first moment on."""

from __future__ import annotations

import os
import sys
import threading

_LAUNCHER = "SWIRL_LAUNCHER"
watched = threading.Event()  # set once the ranks of a job watch each other


def watch_parent() -> None:
    """Ends this rank when the process that started it is gone, until the ranks watch over each other.

    A rank that Lightning's launcher started would otherwise wait half an hour for one that was stopped while starting. The
    launcher gives its process id on in the environment: on busy cores it may be gone before a rank can ask for its parent.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        os.environ[_LAUNCHER] = str(os.getpid())  # the other ranks inherit it
        return
    told = None if "TORCHELASTIC_RUN_ID" in os.environ else os.environ.get(_LAUNCHER)
    end_with_parent(os.getppid() if told is None else int(told))


def end_with_parent(parent: int, period: float = 1.0, what: str = "rank") -> None:
    """Ends this process when its parent is no longer ``parent``.

    Args:
        parent: process id.
        period: seconds between two looks.
        what: this process is.
    """

    def look() -> None:
        while not watched.wait(period):
            if os.getppid() != parent:
                print(f"swirl: error: the process that started this {what} is gone; it ends, too", file=sys.stderr, flush=True)
                os._exit(1)

    threading.Thread(target=look, daemon=True, name="parent-watch").start()
