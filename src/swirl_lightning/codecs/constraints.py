"""Which tokens a role may emit: a range of ids, a list of choices, a regular expression or a grammar.

An action space that the user knows is the best guard against private codes between the two models.
"""

from __future__ import annotations

import unicodedata
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from swirl_lightning.codecs.base import Codec, TokenConstraint

_MASK_BYTES = 1 << 26  # masks kept by one constraint: 64 MiB
_PROBE = "a b, c(d)\n"  # spaces, punctuation, a line break: what a grammar must be able to tell apart


class _PrefixConstraint(TokenConstraint):
    """A constraint whose mask depends on the prefix; recently used masks are kept.

    Args:
        codec: The codec whose end token ends every completion.
    """

    def __init__(self, codec: Codec) -> None:
        self.vocab_size, self.eos_id = codec.vocab_size, codec.eos_id
        self._masks: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self._capacity = max(16, _MASK_BYTES // self.vocab_size)

    def allowed(self, generated: Sequence[int]) -> Tensor:
        """Mask of the tokens that may follow, bool [vocab_size]; the end token alone once nothing else can.

        That is so after the end, and after a prefix that breaks the constraint (so such sequences score ``-inf``).
        The mask is shared between calls: do not write into it.
        """
        prefix = tuple(generated)
        if (mask := self._masks.get(prefix)) is not None:
            self._masks.move_to_end(prefix)
            return mask
        mask = self._compute(prefix)
        self._masks[prefix] = mask
        if len(self._masks) > self._capacity:
            self._masks.popitem(last=False)
        return mask

    @abstractmethod
    def _compute(self, prefix: tuple[int, ...]) -> Tensor:
        """Mask after ``prefix``, bool [vocab_size]."""

    def _mask_of(self, ids: Sequence[int]) -> Tensor:
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        mask[list(ids)] = True
        return mask


class RangeConstraint(TokenConstraint):
    """Ids of one contiguous part of the vocabulary, e.g. the image tokens; the same at every position.

    Args:
        vocab_size: Number of token ids.
        start: First id.
        stop: One past the last id.
        extra_ids: Allowed besides the range, the end token above all.
        excluded_ids: Not allowed though inside the range.

    Raises:
        ValueError: if the range is empty or an id lies outside the vocabulary.
    """

    def __init__(
        self, vocab_size: int, start: int, stop: int, extra_ids: Sequence[int] = (), excluded_ids: Sequence[int] = ()
    ) -> None:
        if not 0 <= start < stop <= vocab_size:
            raise ValueError(f"token range [{start}, {stop}) is empty or outside the vocabulary of {vocab_size} ids")
        if outside := [i for i in extra_ids if not 0 <= i < vocab_size]:
            raise ValueError(f"extra_ids {outside} are outside the vocabulary of {vocab_size} ids")
        self.vocab_size = vocab_size
        self._mask = torch.zeros(vocab_size, dtype=torch.bool)
        self._mask[start:stop] = True
        self._mask[list(extra_ids)] = True
        self._mask[list(excluded_ids)] = False

    @property
    def static(self) -> bool:
        """Always true."""
        return True

    def allowed(self, generated: Sequence[int]) -> Tensor:
        """Mask of the range and the extra ids, bool [vocab_size], whatever was generated."""
        return self._mask


class ChoiceConstraint(_PrefixConstraint):
    """One of a list of strings, each followed by the end token.

    Args:
        choices: The strings. What is drawn is decoded in the tokenizer's form of them (lower case, a space before brackets).
        codec: Encodes the choices.

    Raises:
        ValueError: naming the choice that is given twice, is empty, or loses more than its form in encoding; or for an empty
            list.
    """

    def __init__(self, choices: Sequence[str], codec: Codec) -> None:
        super().__init__(codec)
        if isinstance(choices, str) or not choices:
            raise ValueError(f"choices: give a non-empty list of strings, got {choices!r}")
        self._next: dict[tuple[int, ...], list[int]] = {}  # the trie: what may follow each prefix of a choice
        seen: dict[tuple[int, ...], str] = {}
        for choice in choices:
            ids = (*_encode_choice(choice, codec), self.eos_id)
            if ids in seen:
                same = "" if seen[ids] == choice else f": the tokenizer cannot tell it from {seen[ids]!r}"
                raise ValueError(f"choices: {choice!r} is given twice{same}")
            seen[ids] = choice
            for i, token in enumerate(ids):
                following = self._next.setdefault(ids[:i], [])
                if token not in following:
                    following.append(token)

    def _compute(self, prefix: tuple[int, ...]) -> Tensor:
        return self._mask_of(self._next.get(prefix, (self.eos_id,)))


def _encode_choice(choice: str, codec: Codec) -> list[int]:
    """Token ids of a choice that reads back as itself, or in another form of the same characters."""
    ids = codec.encode_action(choice)
    if not ids:
        raise ValueError(f"choices: {choice!r} has no tokens, so nothing would be chosen")
    if codec.eos_id in ids:
        raise ValueError(f"choices: {choice!r} contains the end token {codec.eos_id}")
    back = codec.decode_action(ids)
    if not _holds(back, choice):
        raise ValueError(
            f"choices: {choice!r} can't be encoded: it reads back as {back!r}. Use a tokenizer that knows all its "
            "characters and keeps its spaces (e.g. a byte-level one), or spell the choice as the tokenizer does"
        )
    return ids


def _holds(back: str, choice: str) -> bool:
    """Whether ``back`` has all of a choice's characters in their order, whatever their case, accents and compatibility form.

    A tokenizer may add spaces (around brackets, say) and drop those at the ends, but not lose one inside.
    """
    characters = iter(_plain(back))
    return all(character in characters for character in _plain(choice).strip())


def _plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


class GrammarConstraint(_PrefixConstraint):
    """A context-free grammar in llguidance's Lark dialect.

    Any tokenisation of a matching text is allowed, not only the canonical one.

    Args:
        grammar: The grammar, with a rule ``start``.
        codec: Its tokenizer must be a fast one that keeps every byte (byte-level BPE, sentencepiece).

    Raises:
        ModuleNotFoundError: without the ``grammar`` extra, with the command that installs it.
        ValueError: for a grammar that does not compile, or a tokenizer that llguidance can't follow.
    """

    _kind = "grammar"

    def __init__(self, grammar: str, codec: Codec) -> None:
        super().__init__(codec)
        if not grammar:
            raise ValueError(f"{self._kind} is empty, so nothing but the end token could be emitted")
        llguidance = _llguidance()
        self._matcher = llguidance.LLMatcher(
            _guided_tokenizer(codec, self._kind), self._compile(llguidance.LLMatcher, grammar), log_level=0
        )
        if self._matcher.is_error():
            raise ValueError(f"{self._kind} {grammar!r} does not compile: {self._matcher.get_error()}")

    def _compile(self, matcher: Any, grammar: str) -> str:
        return str(matcher.grammar_from_lark(grammar))

    def _compute(self, prefix: tuple[int, ...]) -> Tensor:
        self._matcher.reset()
        if self._matcher.try_consume_tokens(list(prefix)) < len(prefix):
            return self._mask_of((self.eos_id,))
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)  # [V / 8]
        bits = (packed[:, None] >> torch.arange(8)) & 1  # [V / 8, 8]
        mask = bits.flatten()[: self.vocab_size].bool()  # [V]
        if self._matcher.is_error() or not bool(mask.any()):
            reason = self._matcher.get_error() or "no token of the tokenizer can follow"
            raise RuntimeError(f"{self._kind} is stuck after token ids {list(prefix)}: {reason}")
        return mask


class RegexConstraint(GrammarConstraint):
    """Texts that a regular expression (Rust syntax, no look-around) matches as a whole.

    Args:
        pattern: The regular expression.
        codec: As for a grammar.

    Raises:
        ModuleNotFoundError: as for a grammar.
        ValueError: as for a grammar.
    """

    _kind = "regex"

    def _compile(self, matcher: Any, grammar: str) -> str:
        return str(matcher.grammar_from_regex(grammar))


def _llguidance() -> Any:
    """The library, imported only where a grammar is used."""
    try:
        import llguidance
        import llguidance.hf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'regex and grammar constraints need llguidance: pip install "swirl-lightning[grammar]"'
        ) from error
    return llguidance


def _guided_tokenizer(codec: Codec, kind: str) -> Any:
    """The codec's tokenizer as llguidance sees it: bytes per token."""
    name = codec.tokenizer.name_or_path
    advice = f"a {kind} needs a fast tokenizer that keeps every byte (e.g. byte-level BPE); use `choices` instead"
    try:
        guided = _llguidance().hf.from_tokenizer(codec.tokenizer, n_vocab=codec.vocab_size, eos_token=codec.eos_id)
    except ValueError as error:
        raise ValueError(f"tokenizer {name!r}: {error}; {advice}") from error
    if (seen := guided.decode_str(codec.encode_action(_PROBE))) != _PROBE:
        raise ValueError(f"tokenizer {name!r} turns {_PROBE!r} into {seen!r}; {advice}")
    return guided


@dataclass(frozen=True)
class ConstraintSpec:
    """A role's constraint as YAML says it: exactly one kind.

    Attributes:
        choices: The completion is one of these strings.
        regex: The completion matches this regular expression as a whole.
        grammar: The completion belongs to this grammar (llguidance's Lark dialect).
        first_id: First token id of a vocabulary range; needs ``last_id``.
        last_id: Last token id of the range, included.
    """

    choices: Sequence[str] | None = None
    regex: str | None = None
    grammar: str | None = None
    first_id: int | None = None
    last_id: int | None = None

    def __post_init__(self) -> None:
        """Check that exactly one kind is given.

        Raises:
            ValueError: naming the fields that are given together, or the one that is missing.
        """
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if given == ["first_id"] or given == ["last_id"]:
            raise ValueError(f"constraint: {given[0]} needs {'last_id' if given == ['first_id'] else 'first_id'} too")
        if len(given) != 1 and given != ["first_id", "last_id"]:
            raise ValueError(
                "constraint: give exactly one of choices, regex, grammar, first_id with last_id; "
                f"got {', '.join(given) or 'none'}"
            )
        if isinstance(self.choices, str):
            raise ValueError(f"constraint: choices must be a list of strings, got {self.choices!r}")

    def build(self, codec: Codec) -> TokenConstraint:
        """The constraint in the codec's vocabulary.

        Raises:
            ValueError: if it does not fit the codec.
            ModuleNotFoundError: if a regex or grammar is given without the ``grammar`` extra.
        """
        if self.choices is not None:
            return ChoiceConstraint(self.choices, codec)
        if self.regex is not None:
            return RegexConstraint(self.regex, codec)
        if self.grammar is not None:
            return GrammarConstraint(self.grammar, codec)
        assert self.first_id is not None
        assert self.last_id is not None
        return RangeConstraint(codec.vocab_size, self.first_id, self.last_id + 1, extra_ids=(codec.eos_id,))


def mask_for(
    constraint: TokenConstraint,
    generated_rows: Sequence[Sequence[int]],
    device: torch.device | str,
    *,
    width: int | None = None,
) -> Tensor:
    """Masks of many rows at once, as the sampler and the scorer need them.

    Args:
        constraint: which tokens may follow.
        generated_rows: N completions so far.
        device: where the masks go; each distinct one is moved once.
        width: number of logits, where a model's output is padded beyond the vocabulary; the padding is not allowed.

    Returns:
        bool [N, vocab_size or width].

    Raises:
        ValueError: if ``width`` is below the vocabulary size.
    """
    size = constraint.vocab_size if width is None else width
    if size < constraint.vocab_size:
        raise ValueError(f"the model has {size} logits, but the constraint knows {constraint.vocab_size} token ids")
    if not len(generated_rows):
        return torch.zeros(0, size, dtype=torch.bool, device=device)
    keys: list[Hashable] = [()] * len(generated_rows) if constraint.static else [constraint.key(row) for row in generated_rows]
    examples = dict(zip(keys, generated_rows, strict=True))  # one prefix of each key, U
    index = {key: i for i, key in enumerate(examples)}
    masks = torch.stack([constraint.allowed(row) for row in examples.values()]).to(device)  # [U, vocab_size]
    if size > constraint.vocab_size:
        masks = torch.nn.functional.pad(masks, (0, size - constraint.vocab_size))  # [U, width]
    rows = torch.tensor([index[key] for key in keys], device=device)
    return masks.index_select(0, rows)  # [N, width]
