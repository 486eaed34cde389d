"""The log-probability pass alone: shared prefixes against plain rows and against the floor of the machine.

The floor is the time that the matrix products of the tokens that must be computed would take at the rate which the same
machine reaches on one large product of the model's own width. Everything else (softmax, norms, copies, Python) is on top.
Prints a table and writes JSON:

    python benchmarks/logprobs.py --json out.json
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _shapes
import torch
from _model import best, config, matmul_rate
from transformers import PreTrainedModel, Qwen2ForCausalLM

from swirl_lightning.scoring.scorer import CausalScorer, ScoringPath, prefer_shared_prefix
from swirl_lightning.types import ScoredRow

COMPLETION = 16
GROUPS = [(512, g) for g in (4, 8, 16, 32, 64)]
PROMPTS = [(p, 16) for p in (256, 1024, 2048, 4096, 8192)]
PLAIN_TOKENS = (
    40_000  # plain rows go through the model in passes of at most so many tokens, for the memory of their activations
)


def rows(prompt: int, group: int) -> list[ScoredRow]:
    """One group of random tokens."""
    rng = random.Random(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, config().vocab_size) for _ in range(n))

    shared = tokens(prompt)
    return [ScoredRow((*shared, *tokens(COMPLETION)), prompt) for _ in range(group)]


def measure(model: PreTrainedModel, prompt: int, group: int, repeats: int, *, plain: bool) -> dict[str, Any]:
    """Seconds of one group, forward and forward with backward, shared and plain, and their floors."""
    made = [rows(prompt, group)]
    rate = matmul_rate(5 * repeats)

    def backward(path: ScoringPath, token_budget: int) -> Callable[[], None]:
        scorer = CausalScorer(token_budget, path=path)

        def run() -> None:
            model.zero_grad(set_to_none=True)
            for batch in scorer.micro_batches([[row] for row in made[0]] if path is ScoringPath.PLAIN else made):
                scorer(model, [[made[0][n] for n in part] for part in batch]).logprobs.sum().backward()

        return run

    flops = _shapes.forward(prompt, group, COMPLETION, 1 + group * (COMPLETION - 1)).flops
    result: dict[str, Any] = {
        "prompt": prompt,
        "group": group,
        "tokens_shared": prompt + group * COMPLETION,
        "tokens_plain": group * (prompt + COMPLETION),
        "gflops_per_second": rate / 1e9,
        "forward_floor": flops / rate,
        "forward": best(lambda: CausalScorer(path=ScoringPath.SHARED).score(model, made), repeats),
        "backward_floor": 3 * flops / rate,
        "backward": best(backward(ScoringPath.SHARED, prompt + group * COMPLETION), repeats),
    }
    if plain:
        result["backward_plain"] = best(backward(ScoringPath.PLAIN, PLAIN_TOKENS), 1)
    return result


def main() -> None:
    """Measures all shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="1 counts processor seconds, which other load disturbs least")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--plain-prompt", type=int, default=2048, help="longest prompt that plain rows are run with, too: minutes beyond"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config()).eval()
    prefer_shared_prefix(model)
    results = []
    print(
        "| prompt | G | tokens, plain / shared | forward, s | of floor | with backward, s | of floor | plain rows, s | gain |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for prompt, group in GROUPS + PROMPTS:
        r = measure(model, prompt, group, args.repeats, plain=prompt <= args.plain_prompt)
        results.append(r)
        plain = (
            f"{r['backward_plain']:.2f} | {r['backward_plain'] / r['backward']:.1f}x" if "backward_plain" in r else "not run |"
        )
        print(
            f"| {prompt} | {group} | {r['tokens_plain']} / {r['tokens_shared']} "
            f"| {r['forward']:.3f} | {r['forward'] / r['forward_floor']:.2f} "
            f"| {r['backward']:.3f} | {r['backward'] / r['backward_floor']:.2f} | {plain} |",
            flush=True,
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
