"""What the tokens of ``swirl init`` may span."""

import pytest

from swirl_lightning.codecs.bpe import train_tokenizer
from swirl_lightning.types import Transition

NAMES = ["final_report.pdf", "notes of monday", "42.50", "größe\tß"]
ROWS = [
    Transition(f'{{"root": {{"{name}": "x"}}}}', f'{{"error": "cat: \'{name}\': No such file"}}', f"cat(file_name={name!r})")
    for name in NAMES
] * 4


@pytest.mark.parametrize("pieces", ["words", "fields"])
def test_every_text_comes_back_as_it_was(pieces):
    tokenizer = train_tokenizer(ROWS, 400, pieces)
    for text in [*(t for row in ROWS for t in (row.state, row.next_state, row.action)), "unseen: ☃ {'a' : [1, 2]}\n "]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_name_between_quotes_is_one_token_wherever_it_stands():
    fields, words = (train_tokenizer(ROWS, 600, pieces) for pieces in ("fields", "words"))
    for row, name in zip(ROWS, NAMES[:3], strict=False):
        assert len(fields(name)["input_ids"]) == 1
        for text in (row.state, row.next_state, row.action):
            assert fields(name)["input_ids"][0] in fields(text)["input_ids"]
            assert len(fields(text)["input_ids"]) < len(words(text)["input_ids"])


def test_what_a_tag_holds_and_an_action_says_are_the_same_tokens():
    rows = [
        Transition(f"<b> {name} </b>", f'<i value="{name}"> {name}', f"[b] {name} -> TYPE: {name}") for name in ["ann", "bob"]
    ]
    fields = train_tokenizer(rows * 4, 400, "fields")
    for name in ("ann", "bob"):
        one = fields(name)["input_ids"]
        assert len(one) == 1
        for text, count in ((f"<b> {name} </b>", 1), (f'<i value="{name}"> {name}', 2), (f"[b] {name} -> TYPE: {name}", 2)):
            assert fields(text)["input_ids"].count(one[0]) == count
            assert fields.decode(fields(text)["input_ids"]) == text


def test_a_selector_and_the_id_it_names_share_a_token():
    rows = [
        Transition(f'<input id="box-{k}">', f'<input id="box-{k}" checked>', f"[checkbox] #box-{k} -> CLICK") for k in range(3)
    ]
    fields = train_tokenizer(rows * 4, 400, "fields")
    for k in range(3):
        one = fields(f"box-{k}")["input_ids"]
        assert len(one) == 1
        assert one[0] in fields(f"[checkbox] #box-{k} -> CLICK")["input_ids"]
        assert one[0] in fields(f'<input id="box-{k}">')["input_ids"]
