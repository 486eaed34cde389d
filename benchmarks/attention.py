"""Causal attention on the CPU: in blocks of queries, as ``scoring/causal_blocks.py`` does it, against torch's kernel alone.

Heads are those of the benchmark's model. Prints a table and writes JSON:

    python benchmarks/attention.py --json out.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from _model import best
from _shapes import SMALL
from torch import Tensor

from swirl_lightning.scoring.causal_blocks import attend_causally

TOKENS = 4096  # of all rows together
LENGTHS = (64, 128, 256, 512, 1024, 1536, 2048)


def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What torch does by itself."""
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What is measured."""
    return attend_causally(query, key, value, None)


def forward_and_backward(attend: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """Gradients of all inputs."""
    torch.autograd.grad(attend(*inputs).sum(), inputs)


def measure(length: int, repeats: int) -> dict[str, float]:
    """Milliseconds of rows of one length: forward, and forward with backward."""
    shape = (TOKENS // length, length, SMALL.heads, SMALL.width // SMALL.heads)
    inputs = [torch.randn(shape).transpose(1, 2).requires_grad_() for _ in range(3)]
    result: dict[str, float] = {"length": length}
    for name, attend in (("kernel", kernel), ("blocks", blocks)):
        with torch.no_grad():
            result[name] = 1e3 * best(partial(attend, *inputs), repeats)
        result[f"{name}_backward"] = 1e3 * best(partial(forward_and_backward, attend, inputs), repeats)
    return result


def main() -> None:
    """Measures all lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="1 counts processor seconds, which other load disturbs least")
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print("| length | rows | kernel, ms | blocks, ms | less | kernel with backward, ms | blocks, ms | less |")
    print("|---|---|---|---|---|---|---|---|")
    results = []
    for length in LENGTHS:
        r = measure(length, args.repeats)
        results.append(r)
        cells = [f"{length} | {TOKENS // length}"]
        for end in ("", "_backward"):
            before, after = r[f"kernel{end}"], r[f"blocks{end}"]
            cells.append(f"{before:.1f} | {after:.1f} | {1 - after / before:.0%}")
        print("| " + " | ".join(cells) + " |", flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
