"""Token constraints with real, small tokenizers."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from swirl_lightning.codecs import (
    ChoiceConstraint,
    ConstraintSpec,
    GrammarConstraint,
    RangeConstraint,
    RegexConstraint,
    TextCodec,
    mask_for,
)

ACTIONS = ["turn left", "turn right", "forward", "forward twice", "pickup(red key)", "öffnen"]


def _byte_level() -> TextCodec:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(ACTIONS * 5, trainer)
    return TextCodec(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>"))


def _words() -> TextCodec:
    words = ["<pad>", "</s>", "<unk>", "turn", "left", "right", "forward", "twice"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextCodec(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", name_or_path="words"
        )
    )


BYTES, WORDS = _byte_level(), _words()


def completions(constraint, codec, limit=50_000):
    """Texts of all completions that the constraint allows (it must be finite), and how many ways there were."""
    texts, ways, stack = set(), 0, [[]]
    while stack:
        prefix = stack.pop()
        for token in constraint.allowed(prefix).nonzero()[:, 0].tolist():
            if token == codec.eos_id:
                texts.add(codec.decode_action(prefix))
                ways += 1
            else:
                stack.append([*prefix, token])
        assert ways < limit
    return texts, ways


def walk(constraint, codec, ids):
    """Whether every token of ``ids`` and then the end is allowed."""
    ids = [*ids, codec.eos_id]
    return all(bool(constraint.allowed(ids[:i])[token]) for i, token in enumerate(ids))


def only_end(constraint, codec, prefix):
    return constraint.allowed(prefix).nonzero()[:, 0].tolist() == [codec.eos_id]


@pytest.mark.parametrize(("codec", "choices"), [(BYTES, ACTIONS), (WORDS, ACTIONS[:4])], ids=["bytes", "words"])
def test_choices_allow_each_choice_in_one_way_and_nothing_else(codec, choices):
    constraint = ChoiceConstraint(choices, codec)
    assert not constraint.static
    assert completions(constraint, codec) == (set(choices), len(choices))
    assert constraint.allowed([]).shape == (codec.vocab_size,)
    done = [*codec.encode_action(choices[0]), codec.eos_id]
    assert only_end(constraint, codec, done)
    assert only_end(constraint, codec, [*done, codec.eos_id])
    assert only_end(constraint, codec, [codec.vocab_size - 1] * 3)  # not a prefix of any choice


def test_masks_are_cached_by_prefix_and_the_cache_is_bounded():
    constraint = ChoiceConstraint(ACTIONS, BYTES)
    assert constraint.allowed([]) is constraint.allowed(())
    constraint._capacity = 3
    for i in range(10):
        constraint.allowed([i])
    assert len(constraint._masks) == 3
    assert completions(constraint, BYTES)[0] == set(ACTIONS)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], r"non-empty list of strings, got \[\]"),
        ("left", r"non-empty list of strings, got 'left'"),
        (["turn left", "turn left"], r"'turn left' is given twice"),
        (["turn left", ""], r"'' has no tokens"),
        (["turn around"], r"'turn around' can't be encoded: it reads back as 'turn <unk>'"),
        (["turn  left"], r"'turn  left' can't be encoded: it reads back as 'turn left'"),
    ],
)
def test_choices_that_cannot_be_spelt_are_named(choices, message):
    with pytest.raises(ValueError, match=message):
        ChoiceConstraint(choices, WORDS)


def test_a_choice_that_spells_the_end_token_is_ordinary_text():
    constraint = ChoiceConstraint(["a</s>b"], BYTES)  # the codec never lets data spell special tokens
    assert completions(constraint, BYTES)[0] == {"a</s>b"}


def test_range_is_static_and_includes_the_extra_ids():
    constraint = RangeConstraint(10, 4, 7, extra_ids=(1,))
    assert constraint.static
    assert constraint.allowed([]).nonzero()[:, 0].tolist() == [1, 4, 5, 6]
    assert constraint.allowed([9, 9]) is constraint.allowed([])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((10, 7, 7), r"\[7, 7\) is empty or outside"),
        ((10, 4, 11), r"\[4, 11\) is empty or outside the vocabulary of 10"),
        ((10, -1, 4), r"\[-1, 4\)"),
        ((10, 0, 4, (1, 10)), r"extra_ids \[10\] are outside"),
    ],
)
def test_ranges_outside_the_vocabulary_are_named(args, message):
    with pytest.raises(ValueError, match=message):
        RangeConstraint(*args)


def test_regex_allows_exactly_the_texts_that_match():
    constraint = RegexConstraint("turn (left|right)|forward( twice)?", BYTES)
    texts, ways = completions(constraint, BYTES)
    assert texts == {"turn left", "turn right", "forward", "forward twice"}
    assert ways > len(texts)  # any tokenisation will do
    assert only_end(constraint, BYTES, [*BYTES.encode_action("turn left"), BYTES.eos_id])
    assert only_end(constraint, BYTES, BYTES.encode_action("right"))  # breaks the pattern
    assert constraint.allowed([]) is constraint.allowed([])


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="go 0123ö", max_size=8))
def test_regex_agrees_with_re_on_any_text(text):
    pattern = r"go [0-9]{1,2}|ö+"
    constraint = RegexConstraint(pattern, BYTES)
    assert walk(constraint, BYTES, BYTES.encode_action(text)) == bool(re.fullmatch(pattern, text))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, BYTES.vocab_size - 1), max_size=6), st.booleans())
def test_something_is_always_allowed_and_the_answer_depends_on_the_prefix_alone(prefix, warm):
    constraint = RegexConstraint("(turn |left )*", BYTES)
    if warm:
        constraint.allowed(BYTES.encode_action("turn left turn "))  # leaves the matcher somewhere else
    mask = constraint.allowed(prefix)
    assert mask.dtype == torch.bool
    assert mask.any()
    assert torch.equal(mask, RegexConstraint("(turn |left )*", BYTES).allowed(prefix))


def test_grammar_nests_where_no_regex_can():
    constraint = GrammarConstraint('start: "(" start ")" | "x"', BYTES)
    assert walk(constraint, BYTES, BYTES.encode_action("((x))"))
    assert not walk(constraint, BYTES, BYTES.encode_action("((x)"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RegexConstraint("(left", BYTES), r"(?s)regex '\(left' does not compile: .*unclosed group"),
        (lambda: RegexConstraint("", BYTES), r"regex is empty"),
        (lambda: GrammarConstraint("start: foo", BYTES), r"(?s)grammar 'start: foo' does not compile: .*foo"),
        (lambda: RegexConstraint("left", WORDS), r"(?s)tokenizer 'words'.* a regex needs a fast tokenizer .*`choices`"),
    ],
)
def test_grammars_that_cannot_work_say_why(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "swirl-lightning\[grammar\]"'):
        RegexConstraint("left", BYTES)


def test_spec_builds_each_kind():
    assert completions(ConstraintSpec(choices=ACTIONS).build(BYTES), BYTES)[0] == set(ACTIONS)
    assert completions(ConstraintSpec(regex="left|right").build(BYTES), BYTES)[0] == {"left", "right"}
    assert completions(ConstraintSpec(grammar='start: "left"').build(BYTES), BYTES)[0] == {"left"}
    ranged = ConstraintSpec(first_id=4, last_id=6).build(WORDS)
    assert ranged.allowed([]).nonzero()[:, 0].tolist() == [WORDS.eos_id, 4, 5, 6]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"exactly one of .* got none"),
        ({"choices": ["a"], "regex": "a"}, r"got choices, regex"),
        ({"regex": "a", "first_id": 1, "last_id": 2}, r"got regex, first_id, last_id"),
        ({"first_id": 1}, r"first_id needs last_id too"),
        ({"last_id": 1}, r"last_id needs first_id too"),
        ({"choices": "left"}, r"choices must be a list of strings, got 'left'"),
    ],
)
def test_spec_refuses_none_or_several_kinds(fields, message):
    with pytest.raises(ValueError, match=message):
        ConstraintSpec(**fields)


def test_mask_for_has_a_row_for_each_completion():
    constraint = ChoiceConstraint(ACTIONS, BYTES)
    ids = BYTES.encode_action("turn left")
    rows = [[], ids[:1], ids, [], [*ids, BYTES.eos_id]]
    masks = mask_for(constraint, rows, "cpu")
    assert masks.shape == (5, BYTES.vocab_size)
    assert masks.dtype == torch.bool
    for row, mask in zip(rows, masks, strict=True):
        assert torch.equal(mask, constraint.allowed(row))
    masks.fill_(True)  # a copy: the cache is untouched
    assert only_end(constraint, BYTES, ids)
    assert mask_for(constraint, [], "cpu").shape == (0, BYTES.vocab_size)


def test_mask_for_pads_to_a_model_with_more_logits_than_tokens():
    constraint = RangeConstraint(5, 1, 3)
    assert mask_for(constraint, [(), (7,)], "cpu", width=8).tolist() == [[False, True, True] + [False] * 5] * 2
    with pytest.raises(ValueError, match="4 logits, but the constraint knows 5"):
        mask_for(constraint, [()], "cpu", width=4)
