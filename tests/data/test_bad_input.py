"""Texts that a world should not hold, but does: from a file through the data module into prompts and answers, or an error."""

import json
import time

import pytest

from swirl_lightning.codecs.bpe import train_tokenizer
from swirl_lightning.codecs.text import TextCodec
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.data.columns import DataError
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.data.schema import write_transitions
from swirl_lightning.types import Transition
from swirl_lightning.world_model.prompts import PromptBuilder

STRANGE = "a\x00b\x07\x1b[0m\u2028\ufeff é 日本 \U0001f600 <|eos|>\r\n\t\u200f"


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**changes):
    return {"state": "s", "next_state": "t", "action": "go", "episode": "e", "step": 0, **changes}


@pytest.fixture(scope="module")
def builder():
    rows = [Transition("<ul><li>entry</li></ul>", "<p>gone</p>", "[button] Go -> CLICK")]
    return PromptBuilder(TextCodec(train_tokenizer(rows, 300)), max_prompt_tokens=200)


def decoded(builder, ids):
    return builder.codec.tokenizer.decode(ids)


def test_unicode_and_control_characters_come_through_unchanged(tmp_path, builder):
    fields = {name: f"{name} {STRANGE}" for name in ("state", "next_state", "action", "context", "episode")}
    (read,) = read_transitions(lines(tmp_path / "log.jsonl", row(**fields)))
    assert read == Transition(fields["state"], fields["next_state"], fields["action"], fields["context"], fields["episode"], 0)
    write_transitions(tmp_path / "parquet", [(read, "train")], dict)
    (again,) = read_transitions(tmp_path / "parquet")
    assert again == read
    prompt = decoded(builder, builder.fwm_prompt(read, read.action).ids)
    assert fields["state"] in prompt
    assert fields["action"] in prompt
    for answer, ids in (
        (read.next_state, builder.state_completion(read.next_state)),
        (read.action, builder.action_completion(read.action)),
    ):
        assert ids.count(builder.codec.eos_id) == 1  # the one that ends it: data cannot spell it
        assert builder.codec.decode_state(ids) == answer


@pytest.mark.parametrize("field", ["state", "next_state", "action", "context", "episode"])
def test_half_a_character_is_named(tmp_path, field):
    with pytest.raises(DataError, match=rf"log\.jsonl, line 2: field '{field}' holds half a character.*ud83d"):
        read_transitions(lines(tmp_path / "log.jsonl", row(), row(step=1, **{field: "cut \ud83d"})))


def test_an_empty_response_is_an_answer_of_its_own(tmp_path, builder):
    path = lines(tmp_path / "log.jsonl", *(row(next_state="", episode=f"e{k}") for k in range(20)))
    data = TransitionDataModule(str(path))
    data.setup()
    assert data.labelled[0].next_state == ""
    scored = builder.fwm_row(data.labelled[0], "go", "")
    assert scored.ids[scored.start :] == (builder.codec.eos_id,)
    assert "Next state:\n\nAction: " in decoded(builder, builder.idm_prompt(data.labelled[0]).ids)


def test_an_empty_action_is_an_action(tmp_path, builder):
    (read,) = read_transitions(lines(tmp_path / "log.jsonl", row(action="")))
    scored = builder.idm_row(read, read.next_state, read.action)
    assert scored.ids[scored.start :] == (builder.codec.eos_id,)


@pytest.mark.parametrize(
    ("value", "text"),
    [({"z": "é", "a": [1, None]}, '{"a": [1, null], "z": "é"}'), (["a"], '["a"]'), (3, "3"), (2.5, "2.5"), (True, "true")],
)
def test_a_response_that_is_no_text_is_its_canonical_json(tmp_path, value, text):
    table = read_transitions(lines(tmp_path / "log.jsonl", row(next_state=value)))
    assert table[0].next_state == text
    assert list(table.report.as_json) == ["next_state"]


def test_a_file_that_was_cut_off_is_named(tmp_path):
    path = lines(tmp_path / "log.jsonl", row(), row(step=1))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"log\.jsonl, line 2: malformed JSON"):
        read_transitions(path)
    write_transitions(tmp_path / "whole", [(Transition("s", "t", "a"), None)], dict)
    file = tmp_path / "whole" / "transitions.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"transitions\.parquet: not a readable Parquet file"):
        read_transitions(tmp_path / "whole")


def test_duplicated_episode_ids_are_named_with_both_places(tmp_path):
    path = lines(tmp_path / "log.jsonl", row(), row(step=1), row(state="another run"))
    with pytest.raises(ValueError, match=r"log\.jsonl, line 3: episode 'e' step 0 was at .*log\.jsonl, line 1 already"):
        TransitionDataModule(str(path)).setup()


def test_ten_megabytes_of_html_cost_no_more_than_their_ends(builder):
    page = "<ul>" + "<li class='x'>entry</li>" * 420_000 + "</ul>"
    assert len(page) > 10_000_000
    huge = Transition(page, page + "<p>gone</p>", "[button] Go -> CLICK")
    began = time.process_time()
    forward, inverse = builder.fwm_prompt(huge, huge.action), builder.idm_prompt(huge)
    assert time.process_time() - began < 5  # encoding it all takes minutes
    assert len(forward.ids) == len(inverse.ids) == 200
    assert decoded(builder, forward.ids).endswith("Action: [button] Go -> CLICK\nNext state:\n")
    assert "<ul><li" in decoded(builder, forward.ids)
    assert "<p>gone</p>\nAction: " in decoded(builder, inverse.ids)
    small = Transition(page[:4000], "", "")
    tokens = len(builder.codec.encode_state(small.state))
    assert forward.cut == pytest.approx(len(page) * tokens / 4000, rel=0.05)


def test_the_ends_of_a_long_text_are_those_of_the_whole(builder):
    text = " ".join(f"word{k}" for k in range(9000))
    half = Transition(text[:25_000], "", "")  # encoded whole
    whole = Transition(text, "", "")  # more than 200 x 64 x 2 characters: its ends alone
    short, long = (builder.fwm_prompt(t, "go").ids for t in (half, whole))
    middle = len(short) // 2 - 12
    assert short[:middle] == long[:middle]
    tail = builder.codec.encode_state(text)[-60:]
    assert ",".join(map(str, tail)) in ",".join(map(str, long))
