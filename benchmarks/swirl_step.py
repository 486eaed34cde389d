"""One whole SWIRL step (rollout, reward, reference, loss, backward, optimizer) against TRL's ``GRPOTrainer``.

Both sides run the same random-weight Qwen2, prompts, group size, completion lengths, dtype and reward, in processes of
their own that take turns step by step. Prints a table and writes JSON:

    python benchmarks/swirl_step.py --shape phase2-text --json out.json

TRL is found in ``.venv-trl``, which ``make bench-trl`` makes; ``--alone`` measures our side by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import _shapes

HERE = Path(__file__).parent
PEER_PYTHON = HERE.parent / ".venv-trl" / "bin" / "python"


class Worker:
    """A process that makes one step at a time.

    Args:
        command: what to run.
        threads: of its numerical libraries.
        log: file for what it prints besides the protocol.
    """

    def __init__(self, command: list[str], threads: int, log: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.log = log
        self._errors = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )

    def step(self) -> dict[str, Any]:
        """Makes a step and returns what it reports.

        Raises:
            RuntimeError: with the end of the worker's output, if it has died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has died: reading on ends in the RuntimeError that says why
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(_shapes.REPLY):
                values: dict[str, Any] = json.loads(line.removeprefix(_shapes.REPLY))
                return values
        raise RuntimeError(f"the worker has died:\n{self.log.read_text(encoding='utf-8')[-3000:]}")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()


def summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, spread, median parts, peaks."""
    seconds = [step["seconds"] for step in steps]
    parts = {name: statistics.median(step["parts"][name] for step in steps) for name in steps[0]["parts"]}
    return {
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "cpu_seconds": statistics.median(step["cpu_seconds"] for step in steps),
        "parts": parts,
        "peak_bytes": max(step["peak_bytes"] for step in steps),
        "peak_gpu_bytes": max(step["peak_gpu_bytes"] for step in steps),
        "reward": statistics.mean(step["reward"] for step in steps),
        "steps": len(steps),
    }


def measure(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Steps of both sides, taking turns."""
    made = [sys.executable, str(HERE / "_model.py"), str(folder), "--size", args.size]
    subprocess.run(made, check=True, stderr=subprocess.DEVNULL)
    count = args.warmup + args.rounds
    common = [
        "--shape",
        args.shape,
        "--size",
        args.size,
        "--models",
        str(folder),
        "--groups",
        str(args.groups),
        "--steps",
        str(count),
        "--threads",
        str(args.threads),
    ]
    ours = [sys.executable, str(HERE / "_ours.py"), *common, "--token-budget", str(args.token_budget)]
    ours += ["--compile"] if args.compile else []
    workers = {"ours": Worker(ours, args.threads, folder / "ours.log")}
    if not args.alone:
        peer = [args.peer_python, str(HERE / "_trl.py"), *common, "--micro-batch", str(args.peer_micro_batch)]
        peer += ["--checkpointing"] if args.peer_checkpointing else []
        workers["peer"] = Worker(peer, args.threads, folder / "peer.log")
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    try:
        for i in range(count):
            for name, worker in workers.items():
                values = worker.step()
                print(f"  {'warm-up' if i < args.warmup else f'round {i}'} {name}: {values['seconds']:.2f} s", flush=True)
                if i >= args.warmup:
                    steps[name].append(values)
    finally:
        for worker in workers.values():
            worker.close()
    return steps


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    sides = [side for side in ("ours", "peer") if side in result]
    lines = [f"| {result['shape']} | " + " | ".join(sides) + " |", "|---|" + "---|" * len(sides)]

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    row("seconds a step, median", [f"{result[s]['seconds']:.2f}" for s in sides])
    row("min to max", [f"{result[s]['seconds_min']:.2f} to {result[s]['seconds_max']:.2f}" for s in sides])
    row("processor seconds, median", [f"{result[s]['cpu_seconds']:.2f}" for s in sides])
    for part in result["ours"]["parts"]:
        row(f"of it {part}", [f"{result[s]['parts'][part]:.2f}" if part in result[s]["parts"] else "" for s in sides])
    row("peak memory of the process, GB", [f"{result[s]['peak_bytes'] / 1e9:.2f}" for s in sides])
    row("peak memory of the GPU, GB", [f"{result[s]['peak_gpu_bytes'] / 1e9:.2f}" for s in sides])
    row("mean reward", [f"{result[s]['reward']:.3f}" for s in sides])
    lines += [
        "",
        "| part | tokens, a row a member | tokens, shared | GFLOP shared | floor, s | ours, s |",
        "|---|---|---|---|---|---|",
    ]
    for part, count in result["count"].items():
        seconds = result["ours"]["seconds"] if part == "step" else result["ours"]["parts"][part]
        cells = [f"{count['plain_tokens']:,.0f}", f"{count['tokens']:,.0f}", f"{count['flops'] / 1e9:,.0f}"]
        row(part, [*cells, f"{count['floor']:.2f}", f"{seconds:.2f}"])
    if "ratio_time" in result:
        times = f"1/{result['ratio_time']:.1f} of the peer's (processor time 1/{result['ratio_cpu_time']:.1f})"
        lines.append(f"\ntime: {times}, memory: 1/{result['ratio_memory']:.1f}")
    return "\n".join(lines)


def main() -> None:
    """Measures one shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=_shapes.SHAPES, required=True)
    parser.add_argument("--size", choices=_shapes.SIZES, default="small", help="of the models")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--alone", action="store_true", help="our side only")
    parser.add_argument("--peer-python", default=str(PEER_PYTHON), help="of an environment made from requirements-trl.txt")
    parser.add_argument("--peer-micro-batch", type=int, default=0, help="rows of one pass of the peer; 0: all at once")
    parser.add_argument("--peer-checkpointing", action="store_true", help="gradient checkpointing in the peer (its default)")
    parser.add_argument("--groups", type=int, default=2, help="groups a step")
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each side")
    parser.add_argument("--warmup", type=int, default=1, help="steps of each side that are not counted")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each side")
    parser.add_argument("--token-budget", type=int, default=16384, help="SwirlModule.token_budget")
    parser.add_argument("--compile", action="store_true", help="world_model.compile on our side")
    args = parser.parse_args()
    if not args.alone and not Path(args.peer_python).is_file():
        made = f"python -m venv {PEER_PYTHON.parent.parent} && {PEER_PYTHON.parent}/pip install -r {HERE}/requirements-trl.txt"
        parser.error(f"there is no {args.peer_python}, which runs TRL: make it ({made}), or measure our side --alone")
    with tempfile.TemporaryDirectory() as folder:
        steps = measure(args, Path(folder))
    shape = _shapes.SHAPES[args.shape]
    size = _shapes.SIZES[args.size]
    plain, shared = (_shapes.counted(replace(shape, pairs=args.groups), shared=flag, size=size) for flag in (False, True))
    rate = steps["ours"][0]["flops_per_second"]
    counts = {
        name: {
            "tokens": shared[name].tokens,
            "plain_tokens": plain[name].tokens,
            "flops": shared[name].flops,
            "plain_flops": plain[name].flops,
            "floor": shared[name].flops / rate,
        }
        for name in shared
    }
    counts["step"] = {key: sum(count[key] for count in counts.values()) for key in counts["policy"]}
    result: dict[str, Any] = {
        "shape": args.shape,
        "size": args.size,
        "prompt": shape.prompt,
        "completion": shape.completion,
        "group": shape.group,
        "groups": args.groups,
        "threads": args.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "flops_per_second": rate,
        "count": counts,
        "compile": args.compile,
        "peer_options": {"micro_batch": args.peer_micro_batch, "checkpointing": args.peer_checkpointing},
    } | {side: summary(made) for side, made in steps.items()}
    if "peer" in result:
        result["ratio_time"] = result["peer"]["seconds"] / result["ours"]["seconds"]
        result["ratio_cpu_time"] = result["peer"]["cpu_seconds"] / result["ours"]["cpu_seconds"]
        result["ratio_memory"] = result["peer"]["peak_bytes"] / result["ours"]["peak_bytes"]
    print(table(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
