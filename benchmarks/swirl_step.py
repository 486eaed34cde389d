"""One whole SWIRL step (rollout, reward, reference, loss, backward, optimizer) against TRL's ``GRPOTrainer``.

All sides run the same random-weight Qwen2, prompts, group size, completion lengths, dtype and reward, in processes of
their own that take turns step by step; before the first step they must agree on log-probabilities and rewards. Two peers:
``strong`` is TRL with all that a user can add to share prefixes (``_trl_strong.py``), ``plain`` is TRL as it comes. Prints a
table and writes JSON:

    python benchmarks/swirl_step.py --shape phase2-text --json out.json

TRL is found in ``.venv-trl``, which ``make bench-trl`` makes; ``--peers`` without a name measures our side by itself.
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
AGREE = 1e-4  # nats between two sides in float32, a token of the policy or a member's mean reward
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
        """Makes a step (first of all, answers the probes) and returns what it reports.

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


def measure(args: argparse.Namespace, folder: Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, float]]]:
    """Steps of all sides, taking turns, and by how much the peers' log-probabilities and rewards differ from ours."""
    made = [sys.executable, str(HERE / "_model.py"), str(folder), "--size", args.size]
    subprocess.run(made, check=True, stderr=subprocess.DEVNULL)
    count = args.warmup + args.rounds
    options = {"shape": args.shape, "size": args.size, "models": folder, "groups": args.groups, "steps": count}
    common = [word for name, value in (options | {"threads": args.threads}).items() for word in (f"--{name}", str(value))]
    ours = [sys.executable, str(HERE / "_ours.py"), *common, "--token-budget", str(args.token_budget)]
    commands = {"ours": ours + (["--compile"] if args.compile else [])}
    for peer in args.peers:
        commands[peer] = [args.peer_python, str(HERE / "_trl.py"), "--peer", peer, *common]
        commands[peer] += ["--checkpointing"] if args.peer_checkpointing else []
        commands[peer] += ["--micro-batch", str(args.peer_micro_batch)] if peer == "plain" else []
    workers = {name: Worker(command, args.threads, folder / f"{name}.log") for name, command in commands.items()}
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    try:
        differences = agreement({name: worker.step() for name, worker in workers.items()})
        for i in range(count):
            for name, worker in workers.items():
                if name == "plain" and i >= args.warmup + args.plain_rounds:
                    continue
                values = worker.step()
                print(f"  {'warm-up' if i < args.warmup else f'round {i}'} {name}: {values['seconds']:.2f} s", flush=True)
                if i >= args.warmup:
                    steps[name].append(values)
    finally:
        for worker in workers.values():
            worker.close()
    return steps, differences


def agreement(numbers: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Largest differences of each peer's log-probabilities and rewards from ours.

    Raises:
        RuntimeError: if one is too large for a comparison to mean anything.
    """
    found: dict[str, dict[str, float]] = {}
    for peer, values in numbers.items():
        if peer == "ours":
            continue
        found[peer] = {}
        for name in ("logprobs", "rewards"):
            pairs = zip(flat(values[name]), flat(numbers["ours"][name]), strict=True)
            found[peer][name] = max((abs(theirs - own) for theirs, own in pairs), key=lambda off: (off != off, off))
        off = max(found[peer].values())
        if values["exact"] and numbers["ours"]["exact"] and not off < AGREE:
            raise RuntimeError(f"{peer} and ours differ by {off:.2g} nats on the same rows: {found[peer]}")
    return found


def flat(values: Any) -> list[float]:
    """Numbers of nested lists."""
    return [number for value in values for number in flat(value)] if isinstance(values, list) else [values]


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    sides = [side for side in ("ours", *_shapes.PEERS) if side in result]
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
    for peer, ratio in result["ratios"].items():
        times = f"1/{ratio['time']:.2f} of {peer} TRL's (processor time 1/{ratio['cpu_time']:.2f})"
        lines.append(f"\ntime: {times}, memory: 1/{ratio['memory']:.2f}; largest difference {result['agreement'][peer]}")
    return "\n".join(lines)


def main() -> None:
    """Measures one shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=_shapes.SHAPES, required=True)
    parser.add_argument("--size", choices=_shapes.SIZES, default="small", help="of the models")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--peers", nargs="*", choices=_shapes.PEERS, default=list(_shapes.PEERS), help="none: our side alone")
    parser.add_argument("--peer-python", default=str(PEER_PYTHON), help="of an environment made from requirements-trl.txt")
    parser.add_argument("--peer-micro-batch", type=int, default=0, help="rows of one pass of plain TRL; 0: all at once")
    parser.add_argument("--peer-checkpointing", action="store_true", help="gradient checkpointing in TRL (its default)")
    parser.add_argument("--groups", type=int, default=2, help="groups a step")
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each side")
    parser.add_argument("--plain-rounds", type=int, default=1000, help="of them with plain TRL, whose steps take minutes")
    parser.add_argument("--warmup", type=int, default=1, help="steps of each side that are not counted")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each side")
    parser.add_argument("--token-budget", type=int, default=16384, help="SwirlModule.token_budget")
    parser.add_argument("--compile", action="store_true", help="world_model.compile on our side")
    args = parser.parse_args()
    if args.peers and not Path(args.peer_python).is_file():
        made = f"python -m venv {PEER_PYTHON.parent.parent} && {PEER_PYTHON.parent}/pip install -r {HERE}/requirements-trl.txt"
        parser.error(f"there is no {args.peer_python}, which runs TRL: make it ({made}), or measure our side alone: --peers")
    with tempfile.TemporaryDirectory() as folder:
        steps, differences = measure(args, Path(folder))
    shape = _shapes.SHAPES[args.shape]
    size = _shapes.SIZES[args.size]
    made = {"size": size, "token_budget": args.token_budget}
    plain, shared = (_shapes.counted(replace(shape, pairs=args.groups), shared=flag, **made) for flag in (False, True))
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
        "commit": _shapes.commit(),
        "flops_per_second": rate,
        "count": counts,
        "compile": args.compile,
        "peer_options": {"micro_batch": args.peer_micro_batch, "checkpointing": args.peer_checkpointing},
    } | {side: summary(made) for side, made in steps.items()}
    keys = {"time": "seconds", "cpu_time": "cpu_seconds", "memory": "peak_bytes"}
    result["ratios"] = {
        peer: {name: result[peer][key] / result["ours"][key] for name, key in keys.items()} for peer in args.peers
    }
    result["agreement"] = differences
    print(table(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
