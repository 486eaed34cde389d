"""The peers' side of ``swirl_step.py``: TRL's ``GRPOTrainer`` with a reward function that asks the frozen opposite model.

As it comes (``plain``), or with what shares prefixes (``strong``, in ``_trl_strong.py``). Runs in an environment of its own
(``requirements-trl.txt``) and imports nothing of swirl-lightning.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import _shapes
import _trl_strong
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import selective_log_softmax

SECONDS: dict[str, float] = defaultdict(float)


def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call; its seconds are added up under ``part``."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            SECONDS[part] += time.perf_counter() - started

    return counted


def judge_reward(shape: _shapes.Shape, judge: PreTrainedModel, tokenizer: Any) -> Callable[..., list[float]]:
    """Mean log-probability per token under the judge, all completions in one batched forward pass."""

    @torch.no_grad()
    def reward(completion_ids: list[list[int]], **columns: list[str]) -> list[float]:
        rows, targets = [], []
        for i, ids in enumerate(completion_ids):
            state = tokenizer(columns["state"][i])["input_ids"]
            if shape.phase == "idm":
                target = tokenizer(columns["next_state"][i])["input_ids"] + [_shapes.EOS]
            else:
                target = tokenizer(columns["action"][i])["input_ids"] + [_shapes.EOS]
            rows.append(state + list(ids) + target)
            targets.append(target)
        ids = torch.tensor(rows, device=judge.device)  # equal lengths: no padding
        target = torch.tensor(targets, device=judge.device)
        kept = target.shape[1]
        logits = judge(input_ids=ids, logits_to_keep=kept + 1, use_cache=False).logits[:, :-1]
        scores: list[float] = selective_log_softmax(logits, target).mean(-1).clamp(min=_shapes.CLAMP).tolist()
        return scores

    return reward


class Paced(TrainerCallback):
    """Waits for the parent before each step and reports it afterwards."""

    def __init__(self) -> None:
        self.rewards: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Blocks until asked."""
        _shapes.wait_for_go()
        SECONDS.clear()
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Reports seconds, parts and the peak."""
        seconds = time.perf_counter() - self.started
        parts = dict(SECONDS)
        parts["policy"] = seconds - sum(parts.values())
        _shapes.reply(
            {
                "seconds": seconds,
                "cpu_seconds": time.process_time() - self.cpu_started,
                "parts": parts,
                "peak_bytes": _shapes.memory(),
                "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
                "reward": sum(self.rewards) / max(1, len(self.rewards)),
            }
        )


def load_judge(shape: _shapes.Shape, args: argparse.Namespace) -> PreTrainedModel:
    """The frozen opposite model."""
    gpu = torch.cuda.is_available()
    folder = args.models / ("fwm" if shape.phase == "idm" else "idm")
    judge = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if gpu else None)
    return judge.requires_grad_(False).eval().to("cuda" if gpu else "cpu")


def reward_of(args: argparse.Namespace) -> Callable[..., Callable[..., list[float]]]:
    """The peer's way to score."""
    return _trl_strong.judge_reward if args.peer == "strong" else judge_reward


def build(shape: _shapes.Shape, judge: PreTrainedModel, args: argparse.Namespace, paced: Paced) -> GRPOTrainer:
    """The trainer, configured for the same work as ours."""
    tokenizer = AutoTokenizer.from_pretrained(args.models / "tokenizer")
    size, gpu = _shapes.SIZES[args.size], torch.cuda.is_available()
    made = _shapes.pairs(shape, shape.pairs * args.steps, vocab=size.vocab)
    rows = {
        "prompt": [f"{p.state} {p.next_state if shape.phase == 'idm' else p.action}" for p in made],
        "state": [p.state for p in made],
        "next_state": [p.next_state for p in made],
        "action": [p.action for p in made],
    }
    score = reward_of(args)(shape, judge, tokenizer)

    def reward(prompts: list[str], completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
        paced.rewards = score(completion_ids, **columns)
        return paced.rewards

    members = shape.pairs * shape.group
    config = GRPOConfig(
        output_dir=str(args.models / "trl"),
        per_device_train_batch_size=args.micro_batch or members,
        gradient_accumulation_steps=members // (args.micro_batch or members),
        num_generations=shape.group,
        max_completion_length=shape.completion,
        temperature=_shapes.TEMPERATURE,
        generation_kwargs={"min_new_tokens": shape.completion},  # full-length completions on both sides
        beta=_shapes.BETA,
        loss_type="grpo",
        learning_rate=_shapes.LEARNING_RATE,
        weight_decay=0.0,
        max_steps=args.steps,
        shuffle_dataset=False,
        gradient_checkpointing=args.checkpointing,
        bf16=gpu,
        use_cpu=not gpu,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        model_init_kwargs={"dtype": size.dtype if gpu else "float32"},
        seed=0,
    )
    trainer = (_trl_strong.GroupedTrainer if args.peer == "strong" else GRPOTrainer)(
        model=str(args.models / shape.phase),
        reward_funcs=timed("reward", reward),
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        callbacks=[paced],
    )
    trainer._generate = timed("rollout", trainer._generate)
    scored = trainer._get_per_token_logps_and_entropies

    def logps(model: Any, *args: Any, **kwargs: Any) -> Any:
        return scored(model, *args, **kwargs) if torch.is_grad_enabled() else reference(model, *args, **kwargs)

    reference = timed("reference", scored)
    trainer._get_per_token_logps_and_entropies = logps
    return trainer


@torch.no_grad()
def numbers(trainer: GRPOTrainer, judge: PreTrainedModel, args: argparse.Namespace) -> dict[str, Any]:
    """Log-probabilities and rewards of the probes, as the trainer computes them."""
    shape, tokenizer = _shapes.SHAPES[args.shape], trainer.processing_class
    made = _shapes.probes(shape.phase, _shapes.SIZES[args.size].vocab)
    encoded = [[tokenizer(text)["input_ids"] for text in (probe.prompt, *probe.completions)] for probe in made]
    longest = max(len(prompt) for prompt, *_ in encoded)
    rows = [[0] * (longest - len(prompt)) + prompt + ids for prompt, *completions in encoded for ids in completions]
    ids = torch.tensor(rows, device=judge.device)
    trainer.model.eval()
    logps, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, (ids != 0).long(), made[0].shape.completion)
    rewards: list[float] = []
    for probe, (_, *completions) in zip(made, encoded, strict=True):
        columns = {name: [value] * len(completions) for name, value in vars(probe.pair).items()}
        rewards += reward_of(args)(probe.shape, judge, tokenizer)(completions, **columns)
    return {"logprobs": logps.tolist(), "rewards": rewards, "exact": not torch.cuda.is_available()}


def main() -> None:
    """Runs as many steps as the parent asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=_shapes.PEERS, required=True)
    parser.add_argument("--shape", choices=_shapes.SHAPES, required=True)
    parser.add_argument("--size", choices=_shapes.SIZES, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--checkpointing", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = replace(_shapes.SHAPES[args.shape], pairs=args.groups)
    judge = load_judge(shape, args)
    trainer = build(shape, judge, args, Paced())
    _shapes.wait_for_go()
    _shapes.reply(numbers(trainer, judge, args))
    trainer.train()


if __name__ == "__main__":
    main()
