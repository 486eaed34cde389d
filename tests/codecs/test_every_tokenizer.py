"""Texts through tokenizers of every kind: special tokens in them stay text, answers are compared in its form."""

import json
from types import SimpleNamespace

import pytest
import torch

from swirl_lightning.algorithm.checks import check_texts
from swirl_lightning.codecs import ChoiceConstraint, TextCodec
from swirl_lightning.codecs.text import known_stops
from swirl_lightning.types import Role, SamplingParams, Transition
from swirl_lightning.world_model.inference import Inference
from swirl_lightning.world_model.prompts import PromptBuilder
from tests.codecs.tokenizers_of_every_kind import KINDS, SLOW

LOSSLESS = {"byte_level", "metaspace_bpe", "prefix_space", "added_stop", "slow_bytes"}
TRICKY = ["a </s> b", "x</s>", "</s></s>", "go <s> on", "[SEP] a", "a<|im_end|> b", "<pad>", "n <|end of turn|>y", "<unk> </s>"]


@pytest.fixture(scope="module", params=[*KINDS, *SLOW])
def kind(request, tmp_path_factory):
    made = SLOW[request.param](tmp_path_factory.mktemp("slow")) if request.param in SLOW else KINDS[request.param]()
    return request.param, TextCodec(made)


@pytest.mark.parametrize("text", TRICKY)
def test_special_tokens_in_a_text_stay_text(kind, text):
    name, codec = kind
    ids = codec.encode_state(text)
    special = {*codec.stop_ids, *codec.tokenizer.all_special_ids} - {codec.tokenizer.unk_token_id}
    assert not set(codec.stop_ids) & set(ids)
    assert not special & set(ids) or name == "words"  # which can spell <pad> in no other way; it ends nothing
    if name in LOSSLESS:
        assert codec.decode_state([*ids, codec.eos_id]) == text
    said = str(codec.decode_state(ids)).replace(" ", "").lower()
    if name != "words" and (codec.tokenizer.unk_token or "?") not in said.upper() + said:
        assert said == text.replace(" ", "").lower()  # nothing of it is lost, whatever the spaces


@pytest.mark.parametrize("text", ["Turn Left", " turn  left", "don't (go) ﬁne", "é 日本\n", "a </s> b", "", "[SEP]"])
def test_the_form_of_a_text_is_that_of_its_answer(kind, text):
    name, codec = kind
    answer = codec.decode_action([*codec.encode_action(text), codec.eos_id])
    assert codec.canonical(answer) == codec.canonical(text) == codec.canonical(codec.canonical(text))
    if name in LOSSLESS - {"prefix_space"}:
        assert codec.canonical(text) == text


def test_texts_that_differ_stay_different(kind):
    codec = kind[1]
    assert codec.canonical("turn left") != codec.canonical("turn now")
    assert (codec.canonical("Turn left") == codec.canonical("turn left")) is (
        kind[0] in {"wordpiece", "slow_wordpiece", "lowercase"}
    )


class Echo(Inference):
    """Answers with what is true, as a perfect model's tokens would read."""

    def predict_states(self, pairs, actions, **_):
        codec = self.codec
        return [[codec.decode_state([*codec.encode_state(pair.next_state), codec.eos_id])] for pair in pairs]

    def infer_actions(self, pairs, **_):
        codec = self.codec
        return [[codec.decode_action([*codec.encode_action(pair.action), codec.eos_id])] for pair in pairs]


def test_a_perfect_model_is_right_with_every_tokenizer(kind):
    rows = [Transition("Turn", text, text, step=i) for i, text in enumerate(["Turn Left now", "don't stop, ﬁne", "a </s> b"])]
    echo = Echo(None, PromptBuilder(kind[1]), dict.fromkeys(Role, SamplingParams()))
    assert echo.exact_match(Role.FWM, rows) == echo.exact_match(Role.IDM, rows) == 1.0
    wrong = [Transition("Turn", "a b", "a b")]
    echo.infer_actions = echo.predict_states = lambda *_, **__: [["b a"]]
    assert echo.exact_match(Role.IDM, wrong) == echo.exact_match(Role.FWM, wrong) == 0.0


def test_what_a_tokenizer_changes_is_counted_before_training():
    rows = [Transition("Turn Left", "turn left", "turn")]
    with pytest.warns(UserWarning, match=r"gives back 1 of 3 labelled texts otherwise .* 'Turn Left' as 'turn left'"):
        check_texts(rows, TextCodec(KINDS["wordpiece"]()))
    check_texts(rows, TextCodec(KINDS["byte_level"]()))


def test_choices_are_the_tokenizers_own_form_of_them():
    codec = TextCodec(KINDS["wordpiece"]())
    constraint = ChoiceConstraint(["Turn Left", "don't stop"], codec)
    ids = [*codec.encode_action("turn left"), codec.eos_id]
    assert all(constraint.allowed(ids[:i])[token] for i, token in enumerate(ids))
    assert codec.decode_action(ids) == codec.canonical("Turn Left")
    with pytest.raises(ValueError, match="'turn left' is given twice: the tokenizer cannot tell it from 'Turn Left'"):
        ChoiceConstraint(["Turn Left", "turn left"], codec)


def test_every_stop_token_of_the_generation_config_stops(tmp_path):
    tokenizer = KINDS["byte_level"]()
    tokenizer.save_pretrained(str(tmp_path))
    marker = tokenizer.convert_tokens_to_ids("<|im_end|>")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": [1, marker]}))
    assert TextCodec(str(tmp_path)).stop_ids == (1, marker)  # the tokenizer's own first: training's answers end with it
    letter = tokenizer.convert_tokens_to_ids("a")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [marker, letter]}))
    assert known_stops(str(tmp_path)) == [marker, letter]
    codec = TextCodec(str(tmp_path))
    assert codec.stop_ids == (1, marker)  # a letter is a slip: it would cut every text short
    assert codec.decode_action([*codec.encode_action("a b"), marker]) == "a b"
    engine = SimpleNamespace(generate=lambda _, request: request.stop_ids)
    world_model = SimpleNamespace(use=lambda _, gradients: torch.no_grad())
    inference = Inference(world_model, PromptBuilder(codec), dict.fromkeys(Role, SamplingParams()), engine=engine)
    assert inference.rollout(Role.FWM, [(1,)], 1, seeds=[0]) == (1, marker)
