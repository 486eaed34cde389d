"""SWIRL in one file: warm-up, Phase I, Phase II (arXiv:2602.06130, Algorithm 1) in plain torch and transformers.

Read it before anything else: the package does the same, faster and for more kinds of worlds. A test trains both on a tiny
world and compares their weights after every phase (`tests/howto/`), so this is also its oracle. Every member of a group is a
row of its own, every row a forward pass of its own, and gradients add up by `backward`.

Left out: speed (shared prefixes, packed rows, key-value caches, more than one process), other worlds (images, constraints,
prompts that are too long, several wordings, chat templates), other ways to draw (top-k, top-p) and to train (shared weights,
adapters, replay, several passes over a rollout, leaving out answers that were cut), and what makes a run survive.

    swirl record doorkey --out data/doorkey
    swirl init --data data/doorkey --out runs/model
    python howto/swirl_in_one_file.py runs/model data/doorkey
"""

import copy
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Formatter

import torch
from pyarrow.parquet import read_table
from torch import Tensor
from torch.optim import Adam, Optimizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

FWM = "State:\n{state}\nAction: {action}\nNext state:\n"  # asks P(y | x, z)
IDM = "State:\n{state}\nNext state:\n{next_state}\nAction: "  # asks Q(z | x, y)


@dataclass(frozen=True)
class Settings:
    """What a run may choose; defaults as in the package."""

    iterations: int = 2
    group_size: int = 16  # G
    temperature: float = 1.0
    max_state_tokens: int = 128
    max_action_tokens: int = 128
    beta: float = 0.1  # weight of the KL term
    epsilon: float = 0.2  # clip of the importance ratio
    reward_floor: float = -10.0  # nats a token
    gradient_clip: float = 1.0
    optimizer: Callable[..., Optimizer] = Adam  # AdamW without decay
    learning_rate: float = 1e-5


@dataclass(frozen=True)
class Pair:
    """A transition. SWIRL reads state-only ones: no action."""

    state: str  # x
    next_state: str  # y
    action: str = ""  # z


Batches = Sequence[Sequence[Pair]]
Rollout = tuple[list[int], list[list[int]], Tensor]  # prompt, G answers, rewards [G]


def noise(pair: Pair, epoch: int, purpose: str, members: int, tokens: int) -> Tensor:
    """Uniform numbers [G, T] that depend on nothing but what they are for."""
    seed = zlib.crc32(f"{pair}{purpose}{epoch}".encode())
    return torch.rand(members, tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Language:
    """Prompts and answers as token ids."""

    tokenizer: PreTrainedTokenizerBase

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, whatever it spells."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] if text else []

    def prompt(self, wording: str, **slots: str) -> list[int]:
        """Begin token, then the wording piece by piece: a slot's ids do not depend on what stands beside it."""
        begin = self.tokenizer.bos_token_id
        pieces = [text for literal, slot, *_ in Formatter().parse(wording) for text in (literal, slots.get(slot or "", ""))]
        return [*([] if begin is None else [begin]), *(token for text in pieces for token in self.encode(text))]

    def answer(self, text: str) -> list[int]:
        """What a model should say: the text, then the end token."""
        return [*self.encode(text), self.tokenizer.eos_token_id]

    def text(self, answer: list[int]) -> str:
        """What a model said, which may lack the end token."""
        words = answer[:-1] if answer[-1] == self.tokenizer.eos_token_id else answer
        return self.tokenizer.decode(words, clean_up_tokenization_spaces=False)


def logprobs(model: PreTrainedModel, prompt: list[int], answer: list[int], temperature: float = 1.0) -> Tensor:
    """Log-probabilities [T] of an answer's tokens."""
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]  # [T, V]
    return (logits.float() / temperature).log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]


@dataclass(frozen=True)
class Run:
    """The pair of models and what they are asked with."""

    fwm: PreTrainedModel
    idm: PreTrainedModel
    language: Language
    settings: Settings

    @torch.no_grad()
    def sample(self, model: PreTrainedModel, prompt: list[int], uniform: Tensor) -> list[int]:
        """An answer, token by token, by inverting the cumulative distribution at the numbers of ``uniform`` [T]."""
        answer: list[int] = []
        for u in uniform:
            logits = model.eval()(torch.tensor([prompt + answer])).logits[0, -1]  # [V]
            cumulative = (logits.float() / self.settings.temperature).softmax(-1).double().cumsum(-1)  # [V]
            answer.append(int(torch.searchsorted(cumulative, u * cumulative[-1], right=True)))
            if answer[-1] == self.language.tokenizer.eos_token_id:
                break
        return answer

    @torch.no_grad()
    def rewards(self, judge: PreTrainedModel, prompts: list[list[int]], answer: list[int]) -> Tensor:
        """Mean log-probability of the answer's tokens after each of G prompts, [G]."""
        judged = [logprobs(judge.eval(), prompt, answer).mean() for prompt in prompts]
        return torch.stack(judged).clamp(min=self.settings.reward_floor)


def swirl(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    labelled: Sequence[Batches],
    state_only: Callable[[int], Batches],
    settings: Settings = Settings(),
    noise: Callable[[Pair, int, str, int, int], Tensor] = noise,
) -> Iterator[tuple[str, PreTrainedModel, PreTrainedModel]]:
    """The whole loop.

    Args:
        base: a causal language model.
        tokenizer: of it.
        labelled: batches of each warm-up epoch.
        state_only: batches of an epoch, counted from the warm-up's first one.
        settings: of the run.
        noise: uniform numbers for the draws.

    Yields:
        After the warm-up and after every phase: its name, FWM and IDM.
    """
    fwm = warm_up(copy.deepcopy(base).train(), Language(tokenizer), labelled, settings)
    run = Run(fwm, idm := copy.deepcopy(fwm), Language(tokenizer), settings)  # one model learned both tasks
    yield "warm-up", fwm, idm
    phases = [(phase_one, fwm), (phase_two, idm)]  # the policy of each learns; the other model, frozen, judges
    for epoch, (phase, policy) in enumerate(phases * settings.iterations, start=len(labelled)):
        optimizer = settings.optimizer(policy.parameters(), lr=settings.learning_rate)
        reference = copy.deepcopy(policy).eval()  # the policy as it stands when the iteration begins
        for done, batch in enumerate(batches := state_only(epoch)):
            for pair in batch:
                # 1. to 3.: latent action, rollouts, rewards
                rollout = phase(pair, run, partial(noise, pair, epoch))
                # 4. group-relative advantages; GRPO with a KL term
                loss = grpo(policy.train(), reference, rollout, settings)
                (loss / (len(batch) * settings.group_size)).backward()
            step(optimizer, policy, done / len(batches), settings)
        yield phase.__name__, fwm, idm


def warm_up(model: PreTrainedModel, language: Language, epochs: Sequence[Batches], settings: Settings) -> PreTrainedModel:
    """Supervised training of both tasks on labelled transitions: without it RL finds no signal."""
    optimizer, steps = settings.optimizer(model.parameters(), lr=settings.learning_rate), sum(map(len, epochs))
    for done, batch in enumerate(batch for epoch in epochs for batch in epoch):
        states = [(language.prompt(FWM, state=p.state, action=p.action), language.answer(p.next_state)) for p in batch]
        actions = [(language.prompt(IDM, state=p.state, next_state=p.next_state), language.answer(p.action)) for p in batch]
        for rows in (states, actions):
            tokens = sum(len(answer) for _, answer in rows)
            for prompt, answer in rows:
                (-logprobs(model, prompt, answer).sum() / tokens).backward()
        step(optimizer, model, done / steps, settings)
    return model


def phase_one(pair: Pair, run: Run, draw: Callable[..., Tensor]) -> Rollout:
    """Variational information maximisation: can the frozen IDM recover the action from the generated next state?"""
    language, settings = run.language, run.settings
    # 1. z ~ Q(. | x, y)
    asked = language.prompt(IDM, state=pair.state, next_state=pair.next_state)
    action = language.text(run.sample(run.idm, asked, draw("latent", 1, settings.max_action_tokens)[0]))
    # 2. y_k ~ P(. | x, z)
    prompt = language.prompt(FWM, state=pair.state, action=action)
    answers = [run.sample(run.fwm, prompt, row) for row in draw("fwm", settings.group_size, settings.max_state_tokens)]
    # 3. r_k = log Q(z | x, y_k)
    judged = [language.prompt(IDM, state=pair.state, next_state=language.text(answer)) for answer in answers]
    return prompt, answers, run.rewards(run.idm, judged, language.answer(action))


def phase_two(pair: Pair, run: Run, draw: Callable[..., Tensor]) -> Rollout:
    """ELBO maximisation: does the action explain the observed next state to the frozen FWM?"""
    language, settings = run.language, run.settings
    # 1. and 2. z_k ~ Q(. | x, y)
    prompt = language.prompt(IDM, state=pair.state, next_state=pair.next_state)
    answers = [run.sample(run.idm, prompt, row) for row in draw("idm", settings.group_size, settings.max_action_tokens)]
    # 3. r_k = log P(y | x, z_k)
    judged = [language.prompt(FWM, state=pair.state, action=language.text(answer)) for answer in answers]
    return prompt, answers, run.rewards(run.fwm, judged, language.answer(pair.next_state))


def grpo(policy: PreTrainedModel, reference: PreTrainedModel, rollout: Rollout, settings: Settings) -> Tensor:
    """GRPO's loss, summed over a group: each answer counts the mean over its tokens (arXiv:2602.06130, Section 3)."""
    prompt, answers, rewards = rollout
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)  # [G]
    loss = torch.zeros(())
    for answer, advantage in zip(answers, advantages, strict=True):
        now = logprobs(policy, prompt, answer, settings.temperature)  # [T]
        ratio = (now - now.detach()).exp()  # 1, with a gradient: the policy that sampled is the one that learns
        clipped = ratio.clamp(1 - settings.epsilon, 1 + settings.epsilon)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        with torch.no_grad():
            before = logprobs(reference, prompt, answer, settings.temperature)  # [T]
        kl = (before - now).exp() - (before - now) - 1  # k3
        loss = loss + (settings.beta * kl - gain).mean()
    return loss


def step(optimizer: Optimizer, model: PreTrainedModel, done: float, settings: Settings) -> None:
    """Clips, and steps with a learning rate that falls by a cosine to a tenth over the phase."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
    optimizer.step()
    optimizer.zero_grad()


def main(model: str, data: str, size: int = 8) -> None:
    """Trains on a few recorded transitions, as this is slow; the first half of them keep their actions."""
    rows = [row for file in sorted(Path(data).glob("*.parquet")) for row in read_table(file).to_pylist()][:64]
    pairs, half = [Pair(row["state"], row["next_state"], row["action"]) for row in rows], len(rows) // 2
    labelled = [pairs[i : i + size] for i in range(0, half, size)]
    state_only = [[replace(pair, action="") for pair in pairs[i : i + size]] for i in range(half, len(pairs), size)]
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))  # untrained, as `swirl init` leaves it
    for phase, *_ in swirl(base, AutoTokenizer.from_pretrained(model), [labelled] * 6, lambda epoch: state_only):
        print(phase, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
