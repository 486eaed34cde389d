"""Reading JSON lines: seconds and memory against what `datasets` alone needs for the same file; and a stream's memory curve.

``python benchmarks/reading.py`` writes a file of a million pairs of 1 kB (``--pairs``, ``--folder``) and reads it by turns
with ``datasets.load_dataset("json")``, ``read_transitions`` and a data module, each in a process of its own and without a
cache; it prints the medians. ``--stream pairs`` (or trajectories, chats) reads such a file as ``data.state_only`` with
``stream_batches`` does, and prints memory and processor time as it goes on.
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
TURNS = ("assistant", "tool")
COLUMNS = {"pairs": {}, "trajectories": {"state": "steps.observation"}, "chats": {}}


def write(path: Path, pairs: int, shape: str) -> None:
    """Pairs of about 1 kB each; texts are cut out of one long one, so that writing costs little."""
    rng = random.Random(0)
    text = " ".join(f"w{rng.randrange(1000)}" for _ in range(200_000))

    def state(length: int) -> str:
        at = rng.randrange(len(text) - length)
        return text[at : at + length]

    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs if shape == "pairs" else pairs // STEPS):
            if shape == "pairs":
                row = {"state": state(450), "next_state": state(450), "action": f"go to {state(8)}"}
                row |= {"episode": f"episode-{number // STEPS}", "step": number % STEPS}
            elif shape == "trajectories":
                row = {"episode": number, "steps": [{"observation": state(900)} for _ in range(STEPS + 1)]}
            else:
                answers = [{"role": role, "content": state(900 - 800 * (role == "assistant"))} for role in TURNS * STEPS]
                row = {"episode": number, "messages": [{"role": "user", "content": state(900)}, *answers]}
            file.write(json.dumps(row) + "\n")


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


def stream(path: Path, pairs: int, shape: str) -> dict[str, object]:
    """Memory while so many pairs are drawn out of a stream, in batches of 128."""
    from swirl_lightning.data.reading import Mapping
    from swirl_lightning.data.stream import PairStream

    drawn, curve, batch = PairStream(str(path), Mapping(COLUMNS[shape], actions=False), window=128), [], 128
    began = time.process_time()
    for number in range(0, pairs - batch + 1, batch):
        for place in range(number, number + batch):
            drawn[place]
        if number // batch % max(1, pairs // batch // 20) == 0:
            point = {"pairs": number + batch, "anonymous": memory("RssAnon"), "processor": time.process_time() - began}
            curve.append(point)
            print(f"{point['pairs']:>10,} pairs {point['anonymous'] / 1e6:8.1f} MB {point['processor']:8.1f} s", flush=True)
    return {"bytes": path.stat().st_size, "pairs": pairs, "curve": curve}


def main() -> None:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("data/benchmark-reading"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--stream", choices=list(COLUMNS), help="shape of the rows")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.file)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    shape = options.stream or "pairs"
    path = (options.folder / f"{shape}-{options.pairs}.jsonl").resolve()
    if not path.exists():
        write(path, options.pairs, shape)
    result = stream(path, options.pairs, shape) if options.stream else compare(path, options.turns)
    print(json.dumps(result if not options.stream else {"bytes": result["bytes"]}, indent=1))
    (ROOT / "results").mkdir(exist_ok=True)
    out = ROOT / "results" / (f"reading-stream-{shape}.json" if options.stream else "reading.json")
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
