"""A world small enough to enumerate: tabular autoregressive policies over short token sequences, in float64."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

STOP = 0  # ends a sequence before its longest length


def sequences(vocab: int, length: int) -> tuple[Tensor, Tensor]:
    """All sequences that end with STOP or at ``length``: tokens [S, L], 0-padded, and mask [S, L]."""
    tokens, mask = [], []
    for row in itertools.product(range(vocab), repeat=length):
        stop = row.index(STOP) + 1 if STOP in row else length
        padded = list(row[:stop]) + [0] * (length - stop)
        if padded not in tokens:
            tokens.append(padded)
            mask.append([True] * stop + [False] * (length - stop))
    return torch.tensor(tokens), torch.tensor(mask)


class TabularPolicy:
    """One free distribution for each context and prefix. C contexts, S sequences of at most L tokens."""

    def __init__(self, logits: list[Tensor]) -> None:
        self.logits = logits  # L tensors [C, V^t, V]
        self.vocab = logits[0].shape[-1]
        self.tokens, self.mask = sequences(self.vocab, len(logits))

    @staticmethod
    def random(contexts: int, vocab: int, length: int, scale: float, generator: torch.Generator) -> TabularPolicy:
        shapes = [(contexts, vocab**t, vocab) for t in range(length)]
        return TabularPolicy([scale * torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes])

    def holding(self, probabilities: Tensor) -> TabularPolicy:
        """A policy of this shape that gives each sequence the probability [C, S]: a table a prefix can hold any."""
        tables = []
        for t, like in enumerate(self.logits):
            alive = self.mask[:, t]
            index = self.prefixes(t) * self.vocab + self.tokens[:, t]
            mass = torch.zeros(like.flatten(1).shape, dtype=like.dtype)  # [C, V^t * V]
            mass = mass.index_add(1, index[alive], probabilities[:, alive])
            tables.append(mass.clamp(min=1e-300).log().view_as(like))
        return TabularPolicy(tables)

    @property
    def size(self) -> int:
        return len(self.tokens)

    def trainable(self) -> TabularPolicy:
        return TabularPolicy([table.detach().clone().requires_grad_() for table in self.logits])

    def step(self, gradients: list[Tensor], rate: float) -> TabularPolicy:
        """The policy after one step uphill."""
        return TabularPolicy([t.detach() + rate * g for t, g in zip(self.logits, gradients, strict=True)])

    def conditionals(self) -> list[Tensor]:
        """Log-probabilities of every next token, L tensors [C, V^t, V]."""
        return [torch.log_softmax(table, dim=-1) for table in self.logits]

    def prefixes(self, t: int) -> Tensor:
        """Index of each sequence's first ``t`` tokens in ``conditionals()[t]``, [S]."""
        index = torch.zeros(self.size, dtype=torch.int64)
        for i in range(t):
            index = index * self.vocab + self.tokens[:, i]
        return index

    def token_logprobs(self) -> Tensor:
        """[C, S, L], 0 after the end."""
        columns = [table[:, self.prefixes(t), self.tokens[:, t]] for t, table in enumerate(self.conditionals())]
        return torch.stack(columns, dim=-1) * self.mask

    def logprobs(self) -> Tensor:
        """Of whole sequences, [C, S]."""
        return self.token_logprobs().sum(-1)


@dataclass(frozen=True)
class World:
    """X states, Y next states, Z actions (the latter two are token sequences)."""

    states: Tensor  # p(x), [X]
    transitions: Tensor  # p(y|x), [X, Y]
    fwm: TabularPolicy  # P(y|x,z), contexts x * Z + z
    idm: TabularPolicy  # Q(z|x,y), contexts x * Y + y

    @staticmethod
    def random(seed: int, *, x: int, y: tuple[int, int], z: tuple[int, int], scale: float) -> World:
        """``y`` and ``z`` are (vocabulary, longest length)."""
        generator = torch.Generator().manual_seed(seed)
        ys, zs = len(sequences(*y)[0]), len(sequences(*z)[0])
        noise = torch.randn(x, ys + 1, generator=generator, dtype=torch.float64) * scale
        return World(
            torch.softmax(noise[:, 0], 0),
            torch.softmax(noise[:, 1:], 1),
            TabularPolicy.random(x * zs, *y, scale, generator),
            TabularPolicy.random(x * ys, *z, scale, generator),
        )

    def with_fwm(self, fwm: TabularPolicy) -> World:
        return replace(self, fwm=fwm)

    def with_idm(self, idm: TabularPolicy) -> World:
        return replace(self, idm=idm)

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.states), self.fwm.size, self.idm.size

    def log_p(self) -> Tensor:
        """log P(y|x,z), [X, Z, Y]."""
        x, y, z = self.shape
        return self.fwm.logprobs().view(x, z, y)

    def log_q(self) -> Tensor:
        """log Q(z|x,y), [X, Y, Z]."""
        x, y, z = self.shape
        return self.idm.logprobs().view(x, y, z)

    def belief(self) -> Tensor:
        """P~(z|x) = E_y[Q(z|x,y)], [X, Z]."""
        return torch.einsum("xy,xyz->xz", self.transitions, self.log_q().exp())

    def latent_entropy(self) -> Tensor:
        """H(Z|X) under the belief."""
        belief = self.belief()
        return -(self.states[:, None] * belief * belief.log()).sum()

    def recovery(self, judge: Tensor | None = None) -> Tensor:
        """J: expected log-probability with which the judge [X, Y, Z] (the IDM) recovers the action."""
        judge = self.log_q() if judge is None else judge
        weight = self.states[:, None, None] * self.belief()[:, :, None] * self.log_p().exp()  # [X, Z, Y]
        return (weight * judge.transpose(1, 2)).sum()

    def mutual_information(self) -> Tensor:
        """I(Z; Y'|X) with z from the belief and y' from the FWM."""
        log_p = self.log_p()
        marginal = torch.einsum("xz,xzy->xy", self.belief(), log_p.exp())
        weight = self.states[:, None, None] * self.belief()[:, :, None] * log_p.exp()
        return (weight * (log_p - marginal.log()[:, None, :])).sum()

    def elbo(self, prior: Tensor) -> Tensor:
        """E[log P(y|x,z)] - KL(Q || prior), prior(z|x) [X, Z]."""
        log_q = self.log_q()
        weight = (self.states[:, None] * self.transitions)[:, :, None] * log_q.exp()  # [X, Y, Z]
        return (weight * (self.log_p().transpose(1, 2) - log_q + prior.log()[:, None, :])).sum()

    def log_likelihood(self, prior: Tensor) -> Tensor:
        """E[log sum_z prior(z|x) P(y|x,z)]."""
        evidence = torch.einsum("xz,xzy->xy", prior, self.log_p().exp()).log()
        return (self.states[:, None] * self.transitions * evidence).sum()


def gradients(objective: Tensor, policy: TabularPolicy) -> list[Tensor]:
    """Of a scalar with respect to the policy's tables."""
    return list(torch.autograd.grad(objective, policy.logits))


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
