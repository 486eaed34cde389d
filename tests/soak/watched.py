"""What a killed process was doing, and which samples it had seen, told from outside."""

import json
import mmap
import os
from pathlib import Path

from swirl_lightning.callbacks import LatentActionHealth, RunCheckpoint, benchmark_evaluation, export_models

from swirl_lightning.algorithm.module import SwirlModule

PLACES = ("start", "warmup", "fwm", "idm", "saving", "evaluation", "export")


class Board:
    """A byte a rank in a file: where it is now. Parent and child map it."""

    def __init__(self, path):
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 8)

    def place(self, rank=0):
        return PLACES[self.memory[rank]]

    def put(self, rank, place):
        self.memory[rank] = PLACES.index(place)


def watch(rank, board, record):
    """Prepares a process: it says where it is, and writes the samples of every step that it finished."""
    shown = Board(board)
    shown.put(rank, "start")

    def marked(owner, name, place):
        inner = getattr(owner, name)

        def method(*arguments, **options):
            before = shown.place(rank)
            shown.put(rank, place)
            try:
                return inner(*arguments, **options)
            finally:
                shown.put(rank, before)

        setattr(owner, name, method)

    marked(RunCheckpoint, "_save", "saving")
    marked(benchmark_evaluation, "run_benchmark", "evaluation")
    marked(LatentActionHealth, "measure", "evaluation")
    marked(export_models, "export_role", "export")
    step = SwirlModule.training_step
    lines = os.open(f"{record}-{rank}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def training_step(self, batch, batch_idx):
        number, epoch = self.global_step, self.current_epoch
        shown.put(rank, self.phase.value)
        result = step(self, batch, batch_idx)
        items = [[item.episode, item.step] for item in (*batch.labelled, *batch.unlabelled)]
        line = {"step": number, "epoch": epoch, "batch": batch_idx, "items": items}
        os.write(lines, json.dumps(line).encode() + b"\n")
        return result

    SwirlModule.training_step = training_step


def steps(record, rank=0):
    """Finished steps, by number, each with the set of all ways in which it was taken."""
    taken = {}
    for line in Path(f"{record}-{rank}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        taken.setdefault(row.pop("step"), set()).add(json.dumps(row))
    return taken
