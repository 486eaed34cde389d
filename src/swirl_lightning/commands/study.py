"""``swirl study``: the paper's comparison on one world, methods x seeds, as one report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile
from tqdm import tqdm

from swirl_lightning.commands.loading import run_parser
from swirl_lightning.commands.options import Columns, named_as
from swirl_lightning.commands.overlays import with_overlays
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.commands.report import (
    Measures,
    carry_on,
    differences,
    run_costs,
    run_rows,
    summarise,
    write_page,
    write_report,
)


@dataclass(frozen=True)
class Method:
    """One row family of the study: a ``swirl fit`` that starts from the warm-up's models.

    Attributes:
        name: Name in the table.
        overrides: Options of ``swirl fit``, e.g. ``{model.schedule.order: [fwm]}``.
        config: A configuration on top of the study's base, e.g. ``configs/recipe/paper.yaml``.
        start: ``warmup`` begins from the seed's SFT models; ``scratch`` runs the base configuration from the beginning, with
            ``model.schedule.iterations: 0`` as a supervised baseline of its own; the name of such a method begins from the
            models of its warm-up, which it must export.
        run: An existing run that is taken as it is, instead of one of the study's own (single seed).
        per_iteration: A row after every iteration instead of one after the last.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    start: str = "warmup"
    run: Path | None = None
    per_iteration: bool = False


@dataclass
class Study:
    """A study: what to run and where.

    Attributes:
        base: Configuration of ``swirl fit`` that all methods share; its warm-up makes the SFT models.
        out: Folder of the study.
        methods: What to compare.
        seeds: One warm-up and one run of every method each.
        warmup_overrides: Options of the warm-up runs only.
        overrides: Options of all runs.
        seed_options: Options that are set to the seed.
        warmup: An existing run whose warm-up made the SFT models, instead of one of the study's own (single seed).
        workers: Runs at a time, each with ``threads`` CPU threads.
        threads: CPU threads per run.
        split: Split that the report is about.
        measure: The FWM's measure that gains are about, e.g. ``tool_bleu``.
        of: Row whose differences to every other one are shown, paired by seed.
        title: First line of the report.
        ablate: Options whose values are tried one after another in every method that starts from the warm-up, e.g.
            ``{model.fwm.group_size: [4, 8, 32]}``: a row ``swirl, group_size=4`` each.
        columns: Names of the data's columns, as ``data.columns`` of ``swirl fit``; the data are read once before anything runs.
        state_only: State-only data, as ``data.state_only``.
        state_only_columns: Their columns, where they are others.
        page: Markdown page whose part between ``<!-- report -->`` and ``<!-- /report -->`` becomes the report's table.
    """

    base: Path
    out: Path
    methods: list[Method]
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    warmup_overrides: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    seed_options: list[str] = field(default_factory=lambda: ["seed_everything"])
    warmup: Path | None = None
    workers: int = 1
    threads: int = 1
    split: str = "test"
    measure: str = "exact_match"
    of: str | None = None
    title: str = "Study"
    ablate: dict[str, list[Any]] = field(default_factory=dict)
    columns: Columns | None = None
    state_only: str | list[str] | None = None
    state_only_columns: Columns | None = None
    page: Path | None = None

    def __post_init__(self) -> None:
        """Check the study before anything runs.

        Raises:
            FileNotFoundError: if the base configuration is missing.
            ValueError: if there is nothing to do, or names repeat.
        """
        for config in (self.base, *(method.config for method in self.methods if method.config is not None)):
            if not config.is_file():
                raise FileNotFoundError(f"study: configuration {config} does not exist")
        if not self.seeds:
            raise ValueError("study: seeds is empty")
        names = [method.name for method in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"study: method names repeat: {sorted(names)}")
        if unknown := [m for m in self.methods if m.start not in ("warmup", "scratch", *self._baselines)]:
            raise ValueError(
                f"study: method {unknown[0].name!r} starts from {unknown[0].start!r}: give warmup, scratch, or the name of a "
                "method that starts from scratch"
            )
        taken = [f"the run of method {m.name!r}" for m in self.methods if m.run is not None]
        taken += [] if self.warmup is None else [f"warmup {self.warmup}"]
        if taken and len(self.seeds) > 1:
            raise ValueError(f"study: {taken[0]} holds one seed's models; give one seed")
        if self.page is not None and not self.page.is_file():
            raise FileNotFoundError(f"study: page {self.page} does not exist; it is edited, not made")

    @property
    def variants(self) -> list[Method]:
        """The methods, each as it is and with every value of every option to ablate."""
        made: list[Method] = []
        for method in self.methods:
            made.append(method)
            for option, values in self.ablate.items() if method.start != "scratch" else ():
                name = f"{method.name}, {option.rpartition('.')[2]}"
                made += [replace(method, name=f"{name}={v}", overrides={**method.overrides, option: v}) for v in values]
        return made

    @property
    def _baselines(self) -> dict[str, Method]:
        """Methods from scratch, by name: others may start from their models."""
        return {method.name: method for method in self.methods if method.start == "scratch"}

    # ------------------------------------------------------------------ running

    def run(self) -> dict[str, Any]:
        """Runs what is not finished yet, then writes ``report.json`` and ``report.md``."""
        started = time.time()
        self._check_data()
        total = len(self.seeds) * (1 + len(self.variants))
        with tqdm(total=total, desc="study", unit="run") as bar, ThreadPoolExecutor(self.workers) as pool:
            for first in (True, False):  # what others start from, then the others
                methods = [m for m in (None, *self.variants) if (m is None or m.start == "scratch") is first]
                cells = [(seed, method) for seed in self.seeds for method in methods]
                list(pool.map(lambda cell: self._cell(cell[0], cell[1], bar), cells))
        report = self._report(seconds=time.time() - started)
        write_report(report, self.out, self.title)
        if self.page is not None:
            write_page(report, self.page)
        return report

    @property
    def _data(self) -> dict[str, Any]:
        """Options of the data that the study itself names."""
        named = {"columns": self.columns, "state_only": self.state_only, "state_only_columns": self.state_only_columns}
        return {f"data.init_args.{name}": value for name, value in named.items() if value is not None}

    def _check_data(self) -> None:
        """Reads the data as the runs will, where the study says how: a slip should not cost a warm-up."""
        if self._data:
            options = [f"--{key}={_as_argument(value)}" for key, value in {**self.overrides, **self._data}.items()]
            parser = run_parser(prog="swirl study")
            data = parser.instantiate_classes(parser.parse_args(with_overlays(["--config", str(self.base), *options]))).data
            data.prepare_data()
            with named_as():
                data.setup("inspect")

    def folder(self, seed: int, method: Method | None) -> Path:
        """Run folder of a cell; ``None`` is the warm-up."""
        existing = self.warmup if method is None else method.run
        if existing is not None:
            return existing
        return self.out / f"seed-{seed}" / ("warmup" if method is None else method.name)

    def _report(self, seconds: float) -> dict[str, Any]:
        """All cells as rows, and what they cost."""
        collected: dict[str, dict[int, Measures]] = {}
        costs: dict[str, list[dict[str, float]]] = {}
        for seed in self.seeds:
            for method in (None, *self.variants):
                folder = self.folder(seed, method)
                for row, measures in self._cell_rows(folder, method).items():
                    collected.setdefault(row, {})[seed] = measures
                cost = run_costs(folder, warmup_only=method is None)
                costs.setdefault("sft" if method is None else method.name, []).append(cost)
        early = {m.name: carry_on(collected, m.name) for m in self.variants if m.per_iteration}
        sft = collected["sft"]
        rows = [
            summarise(name, [by_seed[s] for s in sorted(by_seed)], [sft[s] for s in sorted(by_seed)], self.measure)
            for name, by_seed in collected.items()
        ]
        return {
            "rows": rows,
            "seconds": seconds,
            "differences": {} if self.of is None else differences(collected, self.of, self.measure),
            "of": self.of,
            "ended": {name: seeds for name, seeds in early.items() if seeds},
            "costs": {name: _means(runs) for name, runs in costs.items()},
            "seeds": self.seeds,
            "split": self.split,
            "measure": self.measure,
            "config": str(self.base),
        }

    def _cell_rows(self, folder: Path, method: Method | None) -> dict[str, Measures]:
        name = "swirl" if method is None else method.name
        rows = run_rows(folder, name, self.split, method is not None and method.per_iteration)
        phases = {name: row for name, row in rows.items() if name not in ("sft", "copy") and not name.startswith("best-of-")}
        if method is None:
            return {name: row for name, row in rows.items() if name not in phases}
        if method.start != "scratch":  # what it started from is another row
            return phases
        return {f"{method.name}, warm-up" if phases else method.name: rows["sft"], **phases}

    def _cell(self, seed: int, method: Method | None, bar: Any) -> None:
        folder, existing = self.folder(seed, method), self.warmup if method is None else method.run
        options = self._options(seed, method)
        done = folder / "done.json"
        wanted = json.loads(json.dumps(options, default=str))
        if existing is not None or (done.is_file() and json.loads(done.read_text()) == wanted):
            bar.update(1)
            return
        command = [sys.executable, "-m", "swirl_lightning", "fit", "--config", str(self.base)]
        command += [] if method is None or method.config is None else ["--config", str(method.config)]
        command += [f"--{key}={_as_argument(value)}" for key, value in options.items()]
        options_file = folder / "options.json"
        same = options_file.is_file() and json.loads(options_file.read_text()) == wanted
        if same and (folder / "checkpoints" / "last.ckpt").is_file():
            command += ["--ckpt_path", "last"]  # an interrupted cell goes on where it was
        folder.mkdir(parents=True, exist_ok=True)
        options_file.write_text(json.dumps(options, default=str))
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False).returncode
        if status:
            tail = "\n".join((folder / "log.txt").read_text(errors="replace").splitlines()[-15:])
            raise ChildProcessError(f"study: {folder} failed with status {status}; the end of its log.txt:\n{tail}")
        done.write_text(json.dumps(options, default=str))
        bar.update(1)

    def _options(self, seed: int, method: Method | None) -> dict[str, Any]:
        options: dict[str, Any] = {"run_dir": str(self.folder(seed, method)), **dict.fromkeys(self.seed_options, seed)}
        options |= {"trainer.enable_progress_bar": False, **self.overrides, **self._data}
        if method is None:
            return {**options, "model.schedule.iterations": 0, **self.warmup_overrides}
        if method.start != "scratch":
            models = self.folder(seed, self._baselines.get(method.start)) / "export" / "warmup"
            options["model.schedule.warmup_epochs"] = 0
            options["model.world_model.base"] = str(models / "fwm")
            if {**self.overrides, **method.overrides}.get("model.world_model.storage", "separate") == "separate":
                options["model.world_model.idm_base"] = str(models / "idm")
        return {**options, **method.overrides}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of what all rows have."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def _as_argument(value: Any) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def study(config: Study) -> None:
    """Run a study; finished runs are kept, interrupted ones go on.

    Args:
        config: The study.
    """
    report = config.run()
    print((config.out / "report.md").read_text(encoding="utf-8"))
    print(f"{len(report['rows'])} rows in {config.out}/report.json")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = Parser(prog="swirl study", description="Run the paper's comparison: methods x seeds, one report.")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML of the study")
    parser.add_class_arguments(Study, None)
    values = parser.parse_args(list(argv)).as_dict()  # not instantiated: overrides that name classes stay options of fit
    values.pop("config", None)
    study(Study(**{**values, "methods": [Method(**method) for method in values["methods"]]}))
    return 0
