"""The recorder on the real pages in a real browser, and on pages of the test's own that misbehave."""

import itertools
import json
import re

import pytest

pytest.importorskip("lxml")

from swirl_lightning.commands.record import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.recording import browser
from swirl_lightning.environments.recording.simulators import SimulatorError
from swirl_lightning.environments.web import miniwob
from swirl_lightning.environments.web.mind2web import CUT
from swirl_lightning.environments.web.miniwob import MiniWobRecorder
from swirl_lightning.metrics.web import elements

try:
    browser.find_browser()
    miniwob.pages_folder()
    MISSING = ""
except (SimulatorError, ImportError) as error:
    MISSING = str(error)
needs_pages = pytest.mark.skipif(bool(MISSING), reason=MISSING or "there")
TASKS = ["click-checkboxes", "choose-list", "enter-text", "click-tab", "use-autocomplete", "choose-date-easy", "email-inbox"]


def transitions(**options):
    recorder = MiniWobRecorder(**{"train": 2, "val": 1, "test": 1, "workers": 1, **options})
    return [t for episode in recorder.record() for t in episode], recorder


@pytest.fixture(scope="module")
def some():
    return transitions(tasks=TASKS)


@needs_pages
def test_episodes_are_tasks_with_seeds_of_their_split(some):
    rows, recorder = some
    assert {t.episode for t in rows} == set(recorder.jobs())
    assert {(job.split("/")[1], recorder.split_of(job)) for job in recorder.jobs()} == {
        ("0", "train"),
        ("1", "train"),
        ("100000", "val"),
        ("200000", "test"),
    }
    assert re.fullmatch(r"Select .* and click Submit\.", next(t.context for t in rows if t.episode == "click-checkboxes/0"))
    for before, after in itertools.pairwise(rows):
        if before.episode == after.episode and CUT not in before.next_state + after.state:
            assert before.next_state == after.state


@needs_pages
def test_an_action_names_what_changes(some):
    ticks = [t for t in some[0] if t.action.startswith("[checkbox]")]
    assert ticks
    for t in ticks:
        name = re.fullmatch(r"\[checkbox\] (\w+) -> CLICK", t.action)[1]
        differ = [(a, b) for a, b in zip(elements(t.state), elements(t.next_state), strict=True) if a != b]
        assert [dict(a[2]).keys() ^ dict(b[2]).keys() for a, b in differ] == [{"checked"}]
        assert f"> {name} </label>" in t.next_state
    chosen = [t for t in some[0] if "-> SELECT" in t.action]
    assert chosen
    for t in chosen:
        option = t.action.partition("SELECT: ")[2]
        assert f"<option selected> {option} </option>" in t.next_state
        assert f"<option> {option} </option>" in t.state
    typed = [t for t in some[0] if "-> TYPE" in t.action and t.episode.startswith("enter-text")]
    assert typed
    for t in typed:
        assert f'value="{t.action.partition("TYPE: ")[2]}"' in t.next_state


@needs_pages
def test_the_browsers_own_events_move_scripts(some):
    """jQuery's tabs, menus and calendars open as they do for a person."""
    tabs = [t for t in some[0] if t.episode.startswith("click-tab") and "Tab #" in t.action]
    assert any(t.state != t.next_state for t in tabs)
    menus = [t.next_state for t in some[0] if t.episode.startswith("use-autocomplete") and "TYPE" in t.action]
    assert any("ui-menu-item" in page for page in menus)
    calendars = [t.next_state for t in some[0] if t.episode.startswith("choose-date") and "#datepicker" in t.action]
    assert any("ui-datepicker-calendar" in page for page in calendars)


@needs_pages
def test_nothing_but_the_effect_gives_the_action_away(some):
    for t in some[0]:
        for page in (t.state, t.next_state):
            assert not re.search(r"data-|backend_node_id|ui-state-(focus|hover|active)|cursor|reward|countdown|Time left", page)
            assert 'id="query"' not in page
    same = [t for t in some[0] if t.state == t.next_state]
    assert len(same) == some[1].manifest()["recorder_counts"]["no-op steps"]
    assert same  # a click on Submit leaves no trace


@needs_pages
def test_the_same_options_give_the_same_transitions_with_any_number_of_browsers(some):
    rows, _ = transitions(tasks=TASKS, workers=2)
    assert rows == some[0]
    assert transitions(tasks=["click-checkboxes"], seed=1)[0] != [t for t in rows if t.episode.startswith("click-checkboxes")]


@needs_pages
def test_no_ops_are_dropped_and_pages_cut(some):
    rows, recorder = transitions(tasks=["email-inbox"], no_ops="drop", page_tokens=60)
    assert rows
    assert not any(t.state == t.next_state and CUT not in t.state for t in rows)
    counts = recorder.manifest()["recorder_counts"]
    assert counts["pages cut"] > 0
    assert all(len(re.findall(r"\w+|[^\w\s]", t.state.replace(CUT, ""))) <= 60 for t in rows)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ('<p> <input id="a"> X </p>', '<p> <input id="a" checked> X </p>', '<input id="a" checked> X'),
        ("<p> a </p>", "<p> a </p>", "no change"),
        ("<p> a </p>", "<p> a </p> <ul> <li> b </li> </ul>", "<ul> <li> b </li> </ul>"),
        ("<p> a </p> <ul> <li> b </li> </ul>", "<p> a </p>", "- <ul> - <li> b - </li> - </ul>"),
        ('<b backend_node_id="1"> a </b>', '<b backend_node_id="2"> a </b>', "no change"),
        ("", "text without a tag", "text without a tag"),
    ],
)
def test_changes_of_a_page(before, after, changes):
    assert miniwob.page_changes(before, after) == changes


@needs_pages
def test_the_next_state_may_be_what_changes(some):
    tasks = ["click-checkboxes", "choose-list"]
    rows, recorder = transitions(tasks=tasks, target="changes")
    whole = [t for t in some[0] if t.episode.split("/")[0] in tasks]
    assert recorder.manifest()["target"] == "changes"
    assert [(t.state, t.action) for t in rows] == [(t.state, t.action) for t in whole]
    for short, long in zip(rows, whole, strict=True):
        assert (short.next_state == "no change") == (long.state == long.next_state)
        if short.next_state != "no change":
            assert all(part in long.next_state for part in re.findall(r"<[^>]*>[^<]*", short.next_state))
            assert short.next_state not in long.state


@needs_pages
def test_record_command(tmp_path, capsys):
    options = ["--env.tasks", "[enter-text]", "--env.train", "2", "--env.val", "1", "--env.test", "1"]
    assert main(["miniwob", "--out", str(tmp_path), *options]) == 0
    assert set(read_transitions(tmp_path).column("split")) == {"train", "val", "test"}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["simulator"], manifest["tasks"]) == ("miniwob", ["enter-text"])
    assert "4/4" in capsys.readouterr().err


PAGE = """<!DOCTYPE html><title>t</title><body><div id="wrap"><div id="query">Press it.</div><div id="area">
<button onclick="{click}">Press \x07 it</button><p>é \u2028 日本 \U0001f600 &lt;b&gt;</p></div></div>
<script>
var WOB_DONE_GLOBAL = false, WOB_DATA_MODE = 'x';
Math.seedrandom = () => null;
const getUtterance = () => document.getElementById('query').textContent;
var core = {{ startEpisodeReal() {{ {start} }}, setDataMode() {{}}, getUtterance }};
</script></body>"""


@pytest.fixture
def own_pages(tmp_path, monkeypatch):
    if MISSING.startswith("no browser"):
        pytest.skip(MISSING)
    monkeypatch.setattr(miniwob, "pages_folder", lambda: tmp_path)

    def write(name, click="", start=""):
        (tmp_path / f"{name}.html").write_text(PAGE.format(click=click, start=start))

    return write


def test_a_page_that_hangs_is_stopped_and_counted_and_others_go_on(own_pages):
    own_pages("a-hangs", click="while (true) {}")
    own_pages("b-hangs-at-once", start="while (true) {}")
    own_pages("c-works", click="this.textContent = 'Pressed'")
    rows, recorder = transitions(train=1, val=0, test=0, steps=2, timeout=3)
    assert {t.episode for t in rows} == {"c-works/0"}
    assert recorder.counts["pages that hang, stopped"] == 2


def test_a_browser_may_take_longer_to_start_than_a_page_to_answer(own_pages, monkeypatch):
    start = browser.SimulatorProcess.__init__

    def slowly(self, command, *args, **kwargs):
        start(self, ["sh", "-c", 'sleep 2; exec "$@"', "sh", *command], *args, **kwargs)

    monkeypatch.setattr(browser.SimulatorProcess, "__init__", slowly)
    tab = browser.Browser(1)
    try:
        assert tab.evaluate("1 + 1") == 2
        with pytest.raises(SimulatorError, match="no answer for 1 s"):
            tab.evaluate("while (true) {}")
    finally:
        tab.close()


def test_dialogs_control_characters_and_pages_that_break(own_pages):
    own_pages("a", click="alert('stop'); throw new Error('no')")
    rows, recorder = transitions(train=1, val=0, test=0, steps=1)
    assert [t.action for t in rows] == ["[button] Press \ufffd it -> CLICK"]
    assert (
        rows[0].state == rows[0].next_state == "<button> Press \ufffd it </button> <p> é \ufffd 日本 \U0001f600 &lt;b&gt; </p>"
    )
    assert recorder.counts["no-op steps"] == 1


def test_a_missing_browser_or_package_is_named(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda _: None)
    with pytest.raises(SimulatorError, match=r"no browser was found.*apt-get install chromium"):
        browser.Browser(1)
    monkeypatch.setattr(miniwob.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'pip install "swirl-lightning\[miniwob\]"'):
        transitions()


def test_bad_options_are_named(own_pages):
    own_pages("a")
    with pytest.raises(ValueError, match="tasks: there is no 'b'; there are a"):
        transitions(tasks=["b"])
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        MiniWobRecorder(steps=0)
    with pytest.raises(ValueError, match="timeout must be positive"):
        MiniWobRecorder(timeout=0)
