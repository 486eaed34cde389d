"""Measures of tool answers, by hand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_lightning.metrics import CharacterBleu, ErrorAccuracy, FieldF1, JsonValidity, ToolBleu, fwm_metrics
from swirl_lightning.metrics.tools import fields, is_error


def value(metric, **given_fields):
    metric.update(**given_fields)
    return float(metric.compute())


def test_json_validity_wants_an_object_or_array():
    said = ['{"a": 1}', "[]", "3", "null", '{"a": 1', "", "[" * 100_000]
    assert value(JsonValidity(), predictions=said) == pytest.approx(2 / 7)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"error": "", "response": "ok"}', False),
        ('{"error": "no such file", "response": ""}', True),
        ('{"error": null, "response": 1}', False),
        ('{"status": "ok"}', False),
        ('{\n"error": "",\n"response": "{"a": 1}"\n}', False),  # almost JSON, as models write it
        ('{\n"error": "bad key",\n"response": ""a""\n}', True),
        ("plain words", None),
        ("[1]", None),
        ("", None),
    ],
)
def test_is_error(text, error):
    assert is_error(text) is error


def test_error_accuracy_tells_three_kinds_apart():
    error, fine = '{"error": "x", "response": ""}', '{"error": "", "response": "y"}'
    assert value(ErrorAccuracy(), predictions=[error, fine, "words", error], references=[error, error, error, fine]) == 0.25


def test_fields_are_paths_with_values_and_strings_are_opened():
    text = json.dumps({"error": "", "response": "{'items': [{'id': 1}, {'id': True}], 'none': []}"})
    want = {("/error", ""), ("/response/items/0/id", "1"), ("/response/items/1/id", "True"), ("/response/none", "[]")}
    assert set(fields(text)) == want
    assert set(fields("no JSON {")) == {("", "no JSON {")}
    assert set(fields('{"a": "two\nlines"}')) == {("/a", "two\nlines")}  # a raw line break


def test_field_f1_by_hand():
    true = '{"a": 1, "b": {"c": "x"}, "d": [1, 2]}'  # four fields
    ours = '{"a": 1, "b": {"c": "y"}, "d": [1]}'  # three, two of them right
    assert value(FieldF1(), predictions=[ours], references=[true]) == pytest.approx(2 * 2 / (4 + 3))
    assert value(FieldF1(), predictions=["{", "", true], references=[true, true, true]) == pytest.approx(1 / 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_field_f1_is_symmetric_and_one_for_the_truth(a, b):
    x, y = json.dumps(a), json.dumps(b)
    assert value(FieldF1(), predictions=[x], references=[x]) == 1.0
    forth, back = (value(FieldF1(), predictions=[p], references=[r]) for p, r in ((x, y), (y, x)))
    assert forth == pytest.approx(back)
    assert 0 <= forth <= 1


def test_any_text_has_fields_and_a_kind():
    for text in ("{" * 5000, "['\x00']", '{"a": "[[[["}', "{'a': __import__('os')}", "é\ud800", '{"error": "'):
        assert fields(text)
        assert is_error(text) in (True, False, None)


def test_tool_bleu_is_character_bleu_of_the_converted_answers():
    ours, true = '{"error": "", "response": "abcdx"}', '{"error": "", "response": "abcde"}'
    direct = value(CharacterBleu(), predictions=["ERROR: \nRESPONSE: abcdx"], references=["ERROR: \nRESPONSE: abcde"])
    assert value(ToolBleu(), predictions=[ours], references=[true]) == pytest.approx(direct)
    assert direct > value(CharacterBleu(), predictions=[ours], references=["ERROR: \nRESPONSE: abcde"])


def test_the_tools_collection_has_them():
    metrics = fwm_metrics(scored=False, benchmark="tools")
    metrics.update(predictions=['{"error": "", "response": 1}'], references=['{"error": "", "response": 2}'], states=["doc"])
    got = {name: float(x) for name, x in metrics.compute().items()}
    assert got["field_f1"] == 0.5
    assert got["json_valid"] == got["error_accuracy"] == 1.0
    assert 0 < got["tool_bleu"] < 100
