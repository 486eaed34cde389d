"""Two processes on this machine against one: seconds of the same steps under ``ddp``, memory of ``adapters`` under ``fsdp``.

    python benchmarks/scaling.py efficiency --json out.json
    python benchmarks/scaling.py memory --steps 1 --batch 2 --group 2 --state 32 --json out.json

Every process has one thread. ``efficiency`` runs the same Phase II steps (same global batches) with one process and
with two, in turns, and reports a step's seconds on one process over twice those on two. Processor seconds are counted,
the slower rank's of every step: other load on the machine disturbs them least, but the time that a message is on its
way is not in them. Wall seconds stand beside them. ``memory`` compares the peaks of processes while they train with the
count of what sharding saves; freed memory goes back to the system at once there (``MALLOC_MMAP_THRESHOLD_``), or the
peak would be that of glibc's heap.
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
from pathlib import Path
from typing import Any

import _shapes
import yaml
from _model import tokenizer
from transformers import Qwen2Config

HERE = Path(__file__).parent
ACTION = 16  # words
LARGE = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 32, "num_attention_heads": 12}
SMALL = {
    "hidden_size": _shapes.SMALL.width,
    "intermediate_size": _shapes.SMALL.inner,
    "num_hidden_layers": _shapes.SMALL.layers,
    "num_attention_heads": _shapes.SMALL.heads,
}


def write_world(folder: Path, model: dict[str, int], pairs: int, state: int) -> None:
    """Writes a model folder without weights, to be drawn on loading, its tokenizer, and pairs of random words."""
    folder.mkdir(parents=True)
    config = Qwen2Config(
        vocab_size=_shapes.SMALL.vocab,
        num_key_value_heads=model["num_attention_heads"],
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=_shapes.EOS,
        pad_token_id=0,
        tie_word_embeddings=True,
        **model,
    )
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(str(folder / "model"))
    tokenizer().save_pretrained(str(folder / "tokenizer"))
    rng = random.Random(0)

    def words(n: int) -> str:
        return " ".join(f"w{rng.randrange(_shapes.FIRST_WORD, _shapes.SMALL.vocab)}" for _ in range(n))

    rows = [{"state": words(state), "next_state": words(state), "episode": str(i), "step": 0} for i in range(pairs)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(
    world: Path, run_dir: Path, strategy: Any, ranks: int, storage: str, args: argparse.Namespace, **extra: str
) -> list[Any]:
    """Runs ``swirl fit``; gives what the meter of every rank wrote."""
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-5}}
    role = {"group_size": args.group, "sampling": {"max_new_tokens": ACTION}}
    settings = {
        "seed_everything": 0,
        "run_dir": str(run_dir),
        "trainer": {
            "accelerator": "cpu",
            "strategy": strategy,
            "devices": ranks,
            "max_steps": args.steps,
            "logger": False,
            "limit_val_batches": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "_meter.Meter"}],
        },
        "model": {
            "world_model": {"base": str(world / "model"), "storage": storage},
            "tokenizer": str(world / "tokenizer"),
            "prompts": {"fwm": ["{state} {action}"], "idm": ["{state} {next_state}"]},
            "max_prompt_tokens": 2 * args.state + ACTION,
            "schedule": {"warmup_epochs": 0, "iterations": 1, "order": ["idm"]},
            "fwm": role | {"sampling": {"max_new_tokens": args.state}},
            "idm": role,
            "fwm_optimizer": adam,
            "idm_optimizer": adam,
            "token_budget": 4096,
        },
        "data": {
            "class_path": "swirl_lightning.data.TransitionDataModule",
            "init_args": {
                "path": str(world / "pairs.jsonl"),
                "batch_size": args.batch,
                "val_fraction": 0.0,
                "test_fraction": 0.0,
            },
        },
    }
    run_dir.mkdir(parents=True)
    file = run_dir / "settings.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)} | extra
    command = [sys.executable, *launcher, "-m", "swirl_lightning", "fit", "--config", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return [json.loads((run_dir / f"meter-{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]


def efficiency(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step of one and of two processes, in turns."""
    write_world(folder / "world", SMALL, args.batch * args.steps, args.state)
    seconds: dict[int, dict[str, list[float]]] = {ranks: {"processor": [], "wall": []} for ranks in (1, 2)}
    for repeat in range(args.repeats):
        for ranks in (1, 2):
            strategy = "ddp" if ranks > 1 else "auto"
            meters = run(folder / "world", folder / f"{repeat}-{ranks}", strategy, ranks, "separate", args)
            for clock, all_steps in seconds[ranks].items():
                slower = [max(meter["steps"][i][clock] for meter in meters) for i in range(args.steps)]
                all_steps.extend(slower[1:])  # the first one warms caches up
            print(f"{ranks} processes: " + ", ".join(f"{s:.2f}" for s in seconds[ranks]["processor"]), file=sys.stderr)
    result: dict[str, Any] = {
        "batch": args.batch,
        "group": args.group,
        "state": args.state,
        "action": ACTION,
        "seconds": seconds,
    }
    print("| clock | one process, s a step | two, the slower one, s a step | efficiency |\n|---|---|---|---|")
    for clock in ("processor", "wall"):
        one, two = (statistics.mean(seconds[ranks][clock]) for ranks in (1, 2))
        result[f"efficiency_{clock}"] = one / (2 * two)
        print(f"| {clock} | {one:.2f} | {two:.2f} | {one / (2 * two):.0%} |")
    return result


def memory(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Peak of each process of ``adapters`` under ``ddp`` and ``fsdp``, and the count of what sharding saves."""
    write_world(folder / "world", LARGE, args.batch * args.steps, args.state)
    width, inner, layers = LARGE["hidden_size"], LARGE["intermediate_size"], LARGE["num_hidden_layers"]
    block = 4 * (4 * width * width + 3 * width * inner)  # bytes; biases and norms are left out
    # the other rank's half of all blocks, less two blocks in flight, each as it was gathered and as it is used
    saved = block * layers // 2 - 4 * block
    result: dict[str, Any] = {"bytes_of_blocks": block * layers, "count_saved": saved}
    print("| strategy | rank | imported | loaded | peak in training |\n|---|---|---|---|---|")
    in_shards = {
        "class_path": "swirl_lightning.distributed.strategies.ShardedStrategy",
        "init_args": {"sharded_checkpoints": True},
    }
    strategies = {"ddp": "ddp", "fsdp": "fsdp", "fsdp, checkpoints in shards": in_shards}
    for number, (strategy, setting) in enumerate(strategies.items()):
        place = folder / str(number)
        result[strategy] = run(folder / "world", place, setting, 2, "adapters", args, MALLOC_MMAP_THRESHOLD_="131072")
        for rank, meter in enumerate(result[strategy]):
            sizes = " | ".join(f"{meter[name] / 1e6:.0f} MB" for name in ("imported", "loaded", "peak"))
            print(f"| {strategy} | {rank} | {sizes} |")
    for strategy in list(strategies)[1:]:
        saved_here = [a["peak"] - b["peak"] for a, b in zip(result["ddp"], result[strategy], strict=True)]
        print(f"saved by {strategy}: " + ", ".join(f"{x / 1e6:.0f} MB" for x in saved_here))
    print(f"counted: {saved / 1e6:.0f} MB of the blocks' {block * layers / 1e6:.0f} MB")
    return result


def main() -> None:
    """Runs one of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["efficiency", "memory"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="pairs of a global batch")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--state", type=int, default=192, help="words of a state")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = (efficiency if args.what == "efficiency" else memory)(Path(folder), args)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
