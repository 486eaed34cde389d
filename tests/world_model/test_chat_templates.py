"""Chat templates: slots come through as they are, or training does not begin."""

import pytest

from swirl_lightning.codecs import TextCodec
from swirl_lightning.types import Transition
from swirl_lightning.world_model.prompts import PromptBuilder, PromptTemplates
from tests.codecs.tokenizers_of_every_kind import KINDS

LOOP = "{%% for m in messages %%}<|im_start|>{{ m['role'] }}\n%s<|im_end|>\n{%% endfor %%}"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = LOOP % "{{ m['content'] }}" + ASK
PARTS = LOOP % "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}" + ASK
ROW = Transition('a "b"\n <|im_end|>  C', "next <|im_end|> State ", "Press <b> & 'é'")


@pytest.fixture(scope="module")
def tokenizer():
    made = KINDS["byte_level"]()
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.name_or_path = "tiny"
    return made


def builder(tokenizer, template, **settings):
    tokenizer.chat_template = template
    templates = PromptTemplates(chat=True, **settings)
    return PromptBuilder(TextCodec(tokenizer, **templates.codec_options), templates)


@pytest.mark.parametrize("template", [PLAIN, PARTS, LOOP % "{{ m['content'] | trim }}" + ASK], ids=["plain", "parts", "trim"])
def test_every_slot_stands_once_and_unchanged_between_the_markers(tokenizer, template):
    made = builder(tokenizer, template, system="Be brief.")
    for ids, slots in (
        (made.fwm_prompt(ROW, ROW.action).ids, (ROW.state, ROW.action)),
        (made.idm_prompt(ROW).ids, (ROW.state, ROW.next_state)),
    ):
        text = tokenizer.decode(ids)
        assert all(text.count(slot) == 1 for slot in slots)
        assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nState:\n")
        assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # those in the slots are text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOP % "{{ m['content'] | upper }}", r"'tiny' loses or changes the slot \{state\}"),
        (LOOP % "{{ m['content'] | tojson }}", r"changes the slot \{state\}"),
        (LOOP % "{{ m['content'] | replace('\n', ' ') }}", r"changes the slot \{state\}"),
        (LOOP % "{{ m['content'][:40] }}", r"changes the slot"),
        (LOOP % "{{ m['content'] }}{{ m['content'] }}", r"repeats the slot \{state\}"),
        (LOOP % "hello", r"loses or changes the slot \{state\}"),
        ("{{ strftime_now('%d %b %Y') }}" + PLAIN, r"renders differently .*clock.*chat_template_kwargs, e\.g\. date_string"),
        (LOOP % "{{ m['content'] | length }}{{ m['content'] }}", r"renders differently"),
        ("{{ raise_exception('no, never') }}", r"cannot be rendered: no, never"),
        (None, r"'tiny' has no chat template"),
    ],
)
def test_a_template_that_does_not_keep_the_slots_is_refused_before_training(tokenizer, template, message):
    with pytest.raises(ValueError, match=message) as failure:
        builder(tokenizer, template)
    assert str(failure.value).startswith("prompts.chat")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN,
        "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}<|im_end|>{% endfor %}",
    ],
    ids=["raises", "drops"],
)
def test_a_template_without_a_system_message_names_the_setting(tokenizer, template):
    assert builder(tokenizer, template).fwm_prompt(ROW, ROW.action).ids
    with pytest.raises(ValueError, match=r"the chat template of tokenizer 'tiny' .*prompts\.system"):
        builder(tokenizer, template, system="Be brief.")


def test_variables_of_the_template_are_given(tokenizer):
    thinks = PLAIN + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    assert tokenizer.decode(builder(tokenizer, thinks).idm_prompt(ROW).ids).endswith("<think>")
    quiet = builder(tokenizer, thinks, chat_template_kwargs={"enable_thinking": False})
    assert tokenizer.decode(quiet.idm_prompt(ROW).ids).endswith("assistant\n")
    dated = "{% if not date_string is defined %}{% set date_string = strftime_now('%d') %}{% endif %}{{ date_string }}" + PLAIN
    with pytest.raises(ValueError, match="date_string"):
        builder(tokenizer, dated)
    fixed = builder(tokenizer, dated, chat_template_kwargs={"date_string": "1 Jan 2026"})
    assert tokenizer.decode(fixed.idm_prompt(ROW).ids).startswith("1 Jan 2026")
    with pytest.raises(ValueError, match="chat_template_kwargs: 'tokenize' is set by the program"):
        builder(tokenizer, PLAIN, chat_template_kwargs={"tokenize": True})
    with pytest.raises(ValueError, match="does nothing without prompts"):
        PromptTemplates(chat_template_kwargs={"enable_thinking": False})


def test_answers_end_as_the_template_ends_them(tokenizer):
    end, eos = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id
    chat = builder(tokenizer, PLAIN)
    assert chat.action_completion("go")[-1] == chat.state_completion("there")[-1] == end
    assert chat.codec.stop_ids == (end, eos)
    assert chat.codec.decode_action(chat.action_completion("go")) == "go"
    plain = TextCodec(tokenizer)
    assert plain.eos_id == eos
    assert set(plain.stop_ids) == {end, eos}
    spaced = builder(tokenizer, "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} </s>{% endfor %}")
    assert spaced.codec.eos_id == eos
    bare = builder(tokenizer, "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    assert bare.codec.stop_ids == (eos,)
