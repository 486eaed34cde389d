"""What ``world_model.compute_dtype: bfloat16`` gains on this processor: scoring, training and sampling of a group.

python benchmarks/precision.py --json out.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from _model import best
from transformers import Qwen2Config

from swirl_lightning.rollout import RolloutRequest, TransformersEngine
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.types import Role, SamplingParams, ScoredRow
from swirl_lightning.world_model import WorldModel, WorldModelConfig

LAYERS, VOCABULARY = 2, 8192
PROMPT, MEMBERS, TAIL = 256, 8, 32
HEAD = 64


def measure(folder: str, compute_dtype: str, repeats: int) -> dict[str, float]:
    """Seconds of each part."""
    pair = WorldModel(WorldModelConfig(folder, compute_dtype=compute_dtype), reference=False)  # type: ignore[arg-type]
    ids = torch.randint(2, VOCABULARY, (PROMPT + MEMBERS * TAIL,), generator=torch.Generator().manual_seed(0)).tolist()
    prompt, tails = ids[:PROMPT], [ids[i : i + TAIL] for i in range(PROMPT, len(ids), TAIL)]
    group = [ScoredRow((*prompt, *tail), PROMPT) for tail in tails]
    drawn = RolloutRequest([prompt], [0], MEMBERS, SamplingParams(TAIL), stop_ids=[], pad_id=0)

    def score() -> None:
        with pair.use(Role.FWM) as model:
            CausalScorer().score(model, [group])

    def train() -> None:
        with pair.use(Role.FWM, training=True) as model:
            CausalScorer()(model, [group]).logprobs.sum().backward()

    def sample() -> None:
        with pair.use(Role.FWM) as model:
            TransformersEngine().generate(model, drawn)

    return {call.__name__: best(call, repeats) for call in (score, train, sample)}


def main() -> None:
    """Measures all widths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 896])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    print("| width | part | float32, s | bfloat16, s | gain |\n|---|---|---|---|---|")
    for width in args.widths:
        with tempfile.TemporaryDirectory() as folder:
            Qwen2Config(
                vocab_size=VOCABULARY,
                hidden_size=width,
                intermediate_size=5 * width,
                num_hidden_layers=LAYERS,
                num_attention_heads=width // HEAD,
                num_key_value_heads=max(1, width // HEAD // 7),
                tie_word_embeddings=True,
            ).save_pretrained(folder)
            seconds = {name: measure(folder, name, args.repeats) for name in ("float32", "bfloat16")}
        results.append({"width": width, **seconds})
        for part, before in seconds["float32"].items():
            after = seconds["bfloat16"][part]
            print(f"| {width} | {part} | {before:.3f} | {after:.3f} | {before / after:.2f}x |", flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
