"""``swirl report``: one page that needs nothing else, as a browser shows it."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from swirl_lightning.cli import main
from swirl_lightning.codecs.image_pixels import to_png
from swirl_lightning.commands.curves import thinned
from swirl_lightning.environments.recording.browser import Browser, find_browser
from swirl_lightning.environments.recording.simulators import SimulatorError

PHASES = {"warmup": "warmup", "swirl-1-fwm": "fwm", "swirl-1-idm": "idm"}
NASTY = "<script>alert(1)</script> & </pre>"


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run of three phases leaves behind."""
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("report") / "run"
    (folder / "pictures").mkdir(parents=True)
    steps, measured, samples, health = [], [], [], []
    for number, (label, phase) in enumerate(PHASES.items()):
        place = {"label": label, "phase": phase, "epoch": number, "iteration": int(number > 0)}
        values = {"nll": 2.0} if phase == "warmup" else {"reward": -0.5, "kl": 0.01, "zero_spread_share": 0.2}
        steps += [{**place, "global_step": 20 * number + step, **values} for step in range(1, 21)]
        measures = {"exact_match": 0.5 + 0.1 * number, "logprob": -1.0}
        for decoding in ("greedy", "sampled"):
            row = {**place, "global_step": 20 * number + 20, "split": "val", "decoding": decoding, "transitions": 1234}
            measured.append({**row, "fwm": measures, "idm": measures, "elapsed": 90.0, "generated_tokens": 5000})
        health.append({**place, "accuracy": 0.5, "unique_share": 0.9, "length_ratio": 1.0, "code_gap": 0.1})
        member = {"sample": NASTY, "reward": -0.25, "advantage": 1.5, "finished": number == 1}
        pair = {"episode": "e", "step": 3, "context": "", "state": "a room\na key", "next_state": "a room"}
        if phase != "warmup":
            action = "take key" if phase == "fwm" else None
            samples.append({**place, "global_step": 20 * number, **pair, "inferred_action": action, "members": [member]})
    for name, rows in (("steps", steps), ("metrics", measured), ("samples", samples), ("health", health)):
        lines(folder / f"{name}.jsonl", rows)
    (folder / "pictures" / "groups-warmup.png").write_bytes(to_png(np.zeros((8, 8, 3), np.uint8)))
    (folder / "config.yaml").write_text("model: {world_model: {base: some-model}}\ndata: {init_args: {path: my data}}\n")
    return folder


@pytest.fixture(scope="module")
def page(run):
    pytest.importorskip("matplotlib")
    assert main(["report", str(run)]) == 0
    return run / "report.html"


class Links(HTMLParser):
    """What a page loads, and its tags."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")]


def test_the_page_holds_everything_and_loads_nothing(page):
    text, links = page.read_text(encoding="utf-8"), Links()
    links.feed(text)
    assert {"script", "link", "iframe"} & set(links.tags) == set()
    assert all(value.startswith(("data:", "#")) for value in links.loads)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert links.tags.count("table") == 2 + 2  # measures, health; a sample of each phase
    assert (links.tags.count("svg"), links.tags.count("img")) == (1, 1)


def test_it_says_what_was_measured(page):
    text = page.read_text(encoding="utf-8")
    for said in ("1,234 transitions", "+20.0%", "+40.0%", "base: some-model", "data: my data", "1.5 minutes", "5,000 tokens"):
        assert said in text
    for title in ("NLL, nats a token", "reward", "KL to the reference", "exact matches, val, greedy"):
        assert title in text
    assert text.count("take key") == 1
    assert text.count("(cut)") == 1


@pytest.fixture(scope="module")
def browser():
    try:
        find_browser()
    except SimulatorError as error:
        pytest.skip(str(error))
    opened = Browser(timeout=60.0)
    yield opened
    opened.close()


def test_a_browser_shows_it(page, browser):
    browser.wait_for("Page.loadEventFired", "Page.navigate", url=page.resolve().as_uri())
    assert browser.evaluate("document.title").endswith("run")
    assert browser.evaluate("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    assert browser.evaluate("[...document.images].every(image => image.naturalWidth == 8)")
    width, height = browser.evaluate("(r => [r.width, r.height])(document.querySelector('svg').getBoundingClientRect())")
    assert width > 400
    assert height > 400
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert (
        browser.evaluate(f"[...document.querySelectorAll('pre')].filter(e => e.textContent == {json.dumps(NASTY)}).length") == 2
    )
    assert browser.evaluate("document.querySelector('table').rows.length") == 1 + len(PHASES)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert f"{tmp_path} is not the folder of a `swirl fit` run" in capsys.readouterr().err


def test_another_name_and_a_run_that_was_not_evaluated(run, tmp_path):
    pytest.importorskip("matplotlib")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "steps.jsonl").write_bytes((run / "steps.jsonl").read_bytes())
    assert main(["report", str(alone), "--out", str(tmp_path / "there.html")]) == 0
    text = (tmp_path / "there.html").read_text(encoding="utf-8")
    assert "Not evaluated" in text
    assert "<svg" in text


def test_long_curves_are_averaged():
    xs, ys = thinned([(float(i), float(i % 2)) for i in range(1000)])
    assert len(xs) == 250
    assert xs[-1] == 999.0
    assert set(ys) == {0.5}
    assert thinned([(1.0, 2.0)]) == ([1.0], [2.0])
    assert thinned([]) == ([], [])
