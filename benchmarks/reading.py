"""Reading JSON lines: seconds and memory against what `datasets` alone needs for the same file; and a stream's memory curve.

``python benchmarks/reading.py`` writes a file of a million pairs of 1 kB (``--pairs``, ``--folder``) and reads it by turns
with ``datasets.load_dataset("json")``, ``read_transitions`` and a data module, each in a process of its own and without a
cache; it prints the medians. ``--stream`` reads the file as ``data.state_only`` with ``stream_batches`` does, and prints
memory as it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent
STEPS = 20  # of an episode


def write(path: Path, pairs: int, *, actions: bool) -> None:
    """Pairs of about 1 kB each; texts are cut out of one long one, so that writing costs little."""
    chance = random.Random(0)
    text = " ".join(f"w{chance.randrange(1000)}" for _ in range(200_000))
    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            at, to = chance.randrange(len(text) - 1000), chance.randrange(len(text) - 1000)
            row = {"state": text[at : at + 450], "next_state": text[to : to + 450]}
            if actions:
                row["action"] = f"go to {text[at : at + 8]}"
            file.write(json.dumps({**row, "episode": f"episode-{number // STEPS}", "step": number % STEPS}) + "\n")


def memory(field: str) -> int:
    """Bytes of a field of Linux's ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def measure(side: str, path: Path) -> dict[str, float]:
    """Reads the file in this process: seconds, and the peak of its memory beyond what the imports hold."""
    import datasets

    from swirl_lightning.data import TransitionDataModule, read_transitions

    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    wall, processor = time.perf_counter(), time.process_time()
    if side == "datasets":
        rows = len(datasets.load_dataset("json", data_files=str(path), split="train"))
    elif side == "reader":
        rows = len(read_transitions(path))
    else:
        module = TransitionDataModule(str(path))
        module.setup()
        rows = sum(map(len, (module.labelled, module.unlabelled, module.val, module.test)))
    return {
        "rows": rows,
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "peak": memory("VmHWM") - before,
    }


def compare(path: Path, turns: int) -> dict[str, object]:
    """Medians of both sides, taking turns."""
    found: dict[str, list[dict[str, float]]] = {"datasets": [], "reader": [], "module": []}
    for _ in range(turns):
        for side, results in found.items():
            with tempfile.TemporaryDirectory(dir=path.parent) as cache:
                environment = {**os.environ, "HF_DATASETS_CACHE": cache, "HF_HUB_OFFLINE": "1"}
                command = [sys.executable, __file__, "--side", side, "--file", str(path)]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        side: {name: statistics.median(result[name] for result in results) for name in results[0]}
        for side, results in found.items()
    }
    ratios = {
        side: {name: medians[side][name] / medians["datasets"][name] for name in ("wall", "processor")}
        for side in ("reader", "module")
    }
    return {"bytes": path.stat().st_size, "turns": turns, "medians": medians, "ratios": ratios}


def stream(path: Path, pairs: int) -> dict[str, object]:
    """Memory while so many pairs are drawn out of a stream, in batches of 128."""
    from swirl_lightning.data.reading import Mapping
    from swirl_lightning.data.stream import PairStream

    drawn, curve, batch = PairStream(str(path), Mapping(actions=False), window=128), [], 128
    began = time.perf_counter()
    for number in range(0, pairs - batch + 1, batch):
        for place in range(number, number + batch):
            drawn[place]
        if number // batch % max(1, pairs // batch // 20) == 0:
            point = {"pairs": number + batch, "anonymous": memory("RssAnon"), "seconds": time.perf_counter() - began}
            curve.append(point)
            print(f"{point['pairs']:>10,} pairs {point['anonymous'] / 1e6:8.1f} MB {point['seconds']:8.1f} s", flush=True)
    return {"bytes": path.stat().st_size, "pairs": pairs, "curve": curve}


def main() -> None:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("data/benchmark-reading"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.file)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    name = "state-only" if options.stream else "pairs"
    path = (options.folder / f"{name}-{options.pairs}.jsonl").resolve()
    if not path.exists():
        write(path, options.pairs, actions=not options.stream)
    result = stream(path, options.pairs) if options.stream else compare(path, options.turns)
    print(json.dumps(result if not options.stream else {"bytes": result["bytes"]}, indent=1))
    (ROOT / "results").mkdir(exist_ok=True)
    out = ROOT / "results" / ("reading-stream.json" if options.stream else "reading.json")
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
