"""What both sides of ``swirl_step.py`` compute: shapes, pairs and the worker protocol. Needs the standard library only."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EOS, FIRST_WORD = 1, 3  # ids 0..2 are padding, end and unknown
CLAMP = -10.0  # lowest reward, nats per token
BETA, TEMPERATURE, LEARNING_RATE = 0.1, 1.0, 1e-6
PEERS = ("strong", "plain")  # TRL with all that shares prefixes, TRL as it comes
REPLY = "@@reply "  # marks protocol lines among what libraries print


@dataclass(frozen=True)
class Size:
    """A Qwen2 with random weights, its head tied to the embeddings or not.

    Attributes:
        vocab: token ids; ids 0..2 are padding, end and unknown, the others a word each.
        width: of the hidden states.
        inner: of the MLP.
        layers: number of them.
        heads: of attention.
        kv_heads: heads of keys and values.
        tied: whether the head shares the embeddings' weights.
        dtype: of the weights where there is a GPU; passes are computed in bfloat16 there.
    """

    vocab: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool = True
    dtype: str = "float32"

    @property
    def parameters(self) -> int:
        """Weights, without biases and norms."""
        head = self.width // self.heads
        layer = self.width * (2 * self.width + 2 * self.kv_heads * head + 3 * self.inner)
        return self.layers * layer + self.vocab * self.width * (1 if self.tied else 2)


SMALL = Size(8192, 256, 1024, 6, 8, 4, tied=False)
SIZES = {
    "tiny": Size(128, 32, 64, 2, 4, 2),
    "small": SMALL,
    "0.5b": Size(151936, 896, 4864, 24, 14, 2),  # as Qwen2.5-0.5B
    "3b": Size(151936, 2048, 11008, 36, 16, 2, dtype="bfloat16"),  # as Qwen2.5-3B; 32 bytes a parameter exceed 80 GB
}


@dataclass(frozen=True)
class Shape:
    """Token counts of one group; every completion has full length.

    Attributes:
        phase: ``idm`` (Phase II: the policy answers actions) or ``fwm`` (Phase I: it answers next states).
        state: tokens of x.
        next_state: tokens of y.
        action: tokens of z.
        group: G, completions per prompt.
        pairs: groups a step.
    """

    phase: str
    state: int
    next_state: int
    action: int
    group: int
    pairs: int = 2

    @property
    def prompt(self) -> int:
        """Tokens of the policy's prompt."""
        return self.state + (self.next_state if self.phase == "idm" else self.action)

    @property
    def completion(self) -> int:
        """Tokens of one completion."""
        return self.action if self.phase == "idm" else self.next_state


SHAPES = {
    "phase2-text": Shape("idm", state=512, next_state=512, action=16, group=16),
    "phase2-long": Shape("idm", state=2048, next_state=2048, action=16, group=16),
    "phase2-text-observation": Shape("idm", state=896, next_state=128, action=16, group=16),
    "phase2-long-observation": Shape("idm", state=3584, next_state=512, action=16, group=16),
    "phase1-text": Shape("fwm", state=496, next_state=128, action=16, group=8),
    "phase1-image": Shape("fwm", state=284, next_state=256, action=16, group=8),
    "smoke": Shape("idm", state=24, next_state=24, action=4, group=4),
}


@dataclass(frozen=True)
class Count:
    """What one step has to compute.

    Attributes:
        tokens: token positions that pass through a model; a backward pass counts twice.
        flops: of the matrix products and the attention.
    """

    tokens: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.tokens + other.tokens, self.flops + other.flops)


def forward(prompt: int, members: int, tail: int, scored: int, size: Size = SMALL) -> Count:
    """A forward pass of one group, its prompt computed once.

    Projections and MLP of every token, causal attention, and logits of ``scored`` positions.
    """
    tokens = prompt + members * tail
    head = size.width // size.heads
    layer = size.width * (2 * size.width + 2 * size.kv_heads * head + 3 * size.inner)
    keys = prompt * (prompt + 1) / 2 + members * tail * (prompt + (tail + 1) / 2)
    return Count(tokens, 2 * (size.layers * (tokens * layer + 2 * keys * size.width) + scored * size.width * size.vocab))


def counted(shape: Shape, *, shared: bool, size: Size = SMALL, token_budget: int = 16384) -> dict[str, Count]:
    """One step by part: with shared prompts as they must be computed, or one row a member as they usually are.

    Shared, the policy's pass goes on from the prompts that the rollout has computed, where the step fits into the budget (each
    member computes the prompt's last token again), and the judge of Phase I from the states that it drew the actions for.
    """
    rows, members = (1, shape.group) if shared else (shape.group, 1)

    def scaled(count: Count, factor: int) -> Count:
        return Count(count.tokens * factor, count.flops * factor)

    first = 1  # the prompt's last position predicts the first token of every member
    completion = shape.completion
    policy = forward(shape.prompt, members, completion, first + members * (completion - 1), size)
    target = (shape.next_state if shape.phase == "idm" else shape.action) + 1  # and the end token
    tail = shape.action + shape.next_state + 1
    parts = {
        "rollout": forward(shape.prompt, members, completion - 1, first + members * (completion - 1), size),
        "reward": forward(shape.state, members, tail, members * target, size),
        "reference": policy,
        "policy": scaled(policy, 3),
    }
    if shared and shape.pairs * (shape.prompt + members * completion) <= token_budget:
        again = scaled(forward(shape.prompt - 1, 0, 0, 0, size), -1)
        parts["policy"] = scaled(forward(shape.prompt - 1, members, 1 + completion, members * completion, size), 3) + again
    if shared and shape.phase == "fwm":
        parts["reward"] += scaled(forward(shape.state, 0, 0, 0, size), -1)
    return {name: scaled(count, rows * shape.pairs) for name, count in parts.items()}


@dataclass(frozen=True)
class Pair:
    """Texts of one pair: words of the benchmark's vocabulary, one token each."""

    state: str
    next_state: str
    action: str


def pairs(shape: Shape, count: int, seed: int = 0, vocab: int = SMALL.vocab) -> list[Pair]:
    """Random pairs; a next state differs from its state in a tenth of its words."""
    rng = random.Random(seed)

    def words(n: int) -> list[str]:
        return [f"w{rng.randrange(FIRST_WORD, vocab)}" for _ in range(n)]

    made = []
    for _ in range(count):
        state = words(shape.state)
        after = [word if rng.random() > 0.1 else words(1)[0] for word in state[: shape.next_state]]
        after += words(shape.next_state - len(after))
        made.append(Pair(" ".join(state), " ".join(after), " ".join(words(shape.action))))
    return made


@dataclass(frozen=True)
class Probe:
    """One group with given completions, for which all sides must find the same numbers."""

    shape: Shape
    pair: Pair
    completions: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """What the policy is asked."""
        return f"{self.pair.state} {self.pair.next_state if self.shape.phase == 'idm' else self.pair.action}"


def probes(phase: str, vocab: int) -> list[Probe]:
    """Two small groups whose prompts differ in length."""
    rng, found = random.Random(1), []
    for state in (20, 13):
        shape = Shape(phase, state=state, next_state=12, action=4, group=3, pairs=1)
        words = [[f"w{rng.randrange(FIRST_WORD, vocab)}" for _ in range(shape.completion)] for _ in range(shape.group)]
        found.append(Probe(shape, pairs(shape, 1, vocab=vocab)[0], tuple(" ".join(row) for row in words)))
    return found


def memory(field: str = "VmHWM") -> int:
    """Bytes of this process by ``/proc``: ``VmHWM`` is the peak, ``VmRSS`` the present."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def commit() -> str:
    """The commit that is measured; with ``-dirty`` where files differ from it, empty outside of a clone."""
    command = ["git", "describe", "--always", "--dirty"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return ran.stdout.strip()


def wait_for_go() -> None:
    """Blocks until the parent asks for the next step.

    Raises:
        SystemExit: when the parent has gone.
    """
    if not sys.stdin.readline():
        raise SystemExit("the parent has gone")


def reply(values: dict[str, Any]) -> None:
    """Answers the parent."""
    print(REPLY + json.dumps(values), flush=True)
