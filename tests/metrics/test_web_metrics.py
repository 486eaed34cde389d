"""Distances between pages, by hand."""

import math
import time

import pytest

pytest.importorskip("lxml")
pytest.importorskip("rapidfuzz")

from swirl_lightning.metrics import ChangedElementF1, DomEditDistance, RougeL, fwm_metrics
from swirl_lightning.metrics.web import elements

OLD = '<div><p>Hello</p><input type="checkbox" id="a"><input type="checkbox" id="b"><button>Go</button></div>'
TICKED = OLD.replace('id="a"', 'id="a" checked="true"')
OTHER = OLD.replace('id="b"', 'id="b" checked="true"')


def value(metric, **given_fields):
    metric.update(**given_fields)
    return float(metric.compute())


def test_elements_are_in_document_order_with_own_text():
    found = [(tag, dict(attributes), text) for _, tag, attributes, text in elements("<div a='1'>one <b>two</b>\n three</div>")]
    assert found[-2:] == [("div", {"a": "1"}, "one three"), ("b", {}, "two")]
    assert elements("<p>a</p><!-- c -->") == elements("<p>a</p>")
    assert elements('<i x="1" y="2"></i>') == elements("<i  y='2' x='1' >")  # spelling is not a difference


def test_edit_distance_counts_elements_over_the_longer_page():
    size = len(elements(OLD))
    assert value(DomEditDistance(), predictions=[OLD], references=[OLD]) == 0.0
    assert value(DomEditDistance(), predictions=[OLD], references=[TICKED]) == pytest.approx(1 / size)
    assert value(DomEditDistance(), predictions=[""], references=[OLD]) == 1.0
    assert value(DomEditDistance(), predictions=[""], references=[""]) == 0.0


def test_copying_the_old_page_scores_what_it_deserves():
    page = OLD * 20
    after = page.replace('id="a"', 'id="a" checked="true"', 1)
    assert value(RougeL(), predictions=[page], references=[after]) > 98  # which flatters a copy
    assert value(ChangedElementF1(), predictions=[page], references=[after], states=[page]) == 0.0
    assert value(ChangedElementF1(), predictions=[after], references=[after], states=[page]) == 1.0


def test_a_change_has_a_place():
    assert value(ChangedElementF1(), predictions=[OTHER], references=[TICKED], states=[OLD]) == 0.0
    both = TICKED.replace('id="b"', 'id="b" checked="true"')
    assert value(ChangedElementF1(), predictions=[both], references=[TICKED], states=[OLD]) == pytest.approx(2 / 3)
    moved = value(  # two equal boxes: the wrong one is ticked
        ChangedElementF1(), predictions=["<b x='1'></b><b></b>"], references=["<b></b><b x='1'></b>"], states=["<b></b><b></b>"]
    )
    assert moved == 0.0


def test_an_element_at_the_top_does_not_change_all_that_follows():
    longer = OLD.replace("<div>", "<div><h1>News</h1>", 1)
    assert value(ChangedElementF1(), predictions=[longer], references=[longer], states=[OLD]) == 1.0
    assert value(DomEditDistance(), predictions=[OLD], references=[longer]) == pytest.approx(1 / len(elements(longer)))
    wrong_text = longer.replace("News", "Olds")
    assert value(ChangedElementF1(), predictions=[wrong_text], references=[longer], states=[OLD]) == 0.0


def test_pages_that_stay_are_not_counted():
    assert math.isnan(value(ChangedElementF1(), predictions=[TICKED], references=[OLD], states=[OLD]))
    metric = ChangedElementF1()
    assert value(metric, predictions=[OLD, TICKED], references=[OLD, TICKED], states=[OLD, OLD]) == 1.0


@pytest.mark.parametrize(
    "page",
    ["\x00", "a\x00b\x07<p>é\u200f\ud800</p>", "<<<>>>", "<p", "</div></div>", "plain words", "<!DOCTYPE html>", "<b>" * 3000],
)
def test_any_text_is_a_page(page):
    assert value(DomEditDistance(), predictions=[page], references=[page]) == 0.0
    assert 0 <= value(DomEditDistance(), predictions=[page], references=[OLD]) <= 1


def test_a_character_that_no_page_may_hold_does_not_cut_it():
    assert [element[-1] for element in elements("<p>a\x00b</p><p>c</p>")][-2:] == ["a\N{REPLACEMENT CHARACTER}b", "c"]


def test_ten_megabytes_are_read_in_seconds():
    row = '<li class="result"><a href="/item">A result with some words</a></li>'
    page = f"<ul>{row * (10_000_000 // len(row))}</ul>"
    began = time.monotonic()
    changed = page.replace("A result", "The result", 1)
    assert value(ChangedElementF1(), predictions=[changed], references=[changed], states=[page]) == 1.0
    assert time.monotonic() - began < 60


def test_the_web_collection_has_them():
    metrics = fwm_metrics(scored=False, benchmark="web")
    metrics.update(predictions=[OLD], references=[TICKED], states=[OLD])
    got = {name: float(x) for name, x in metrics.compute().items()}
    assert got["changed_element_f1"] == 0.0
    assert got["dom_edit_distance"] > 0
