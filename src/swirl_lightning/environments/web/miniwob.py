"""MiniWoB++ (arXiv:1802.08802): small web pages, run in headless Chromium.

The real pages of the PyPI package ``miniwob`` are opened from disk, seeded, and clicked, typed into and selected from with the
browser's own events. A state is the page before the action as compact HTML, the next state the page after it, when its timers
and animations have run for half a second of the page's time. The task is the context, the action worded as in Mind2Web::

    <label> <input id="ch0" type="checkbox"> KUmEgOZ </label> <button id="subbtn" class="secondary-action"> Submit </button>
    [checkbox] KUmEgOZ -> CLICK
    <label> <input id="ch0" type="checkbox" checked> KUmEgOZ </label> <button id="subbtn" class="secondary-action"> Submit ...

What would give the action away without being its effect is not in a page: MiniWoB's own marks on elements (``data-*``),
classes and attributes of focus, hover and a pressed button, the cursor, the timer, the reward. The task is not in the page
either. A page longer than ``page_tokens`` is cut around the acted-on element, as in Mind2Web, and so is the page after it.
With ``target: changes`` the next state is what is new in the page, and ``- `` with what is gone::

    <input id="ch0" type="checkbox" checked> KUmEgOZ

Chance, clock, time zone and timers are seeded or simulated: the same options give the same transitions.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.recording.browser import Browser
from swirl_lightning.environments.recording.jobs import JobRecorder, JobResult
from swirl_lightning.environments.recording.simulators import SimulatorError, run_side_by_side
from swirl_lightning.environments.web.mind2web import NODE_ID, clean, cut_page
from swirl_lightning.hints import did_you_mean
from swirl_lightning.types import Transition

SCRIPT = Path(__file__).with_suffix(".js")
SPLITS = ("train", "val", "test")
FIRST_SEED = {"train": 0, "val": 100_000, "test": 200_000}
NOT_PLAYED = re.compile(  # drags, drawings and moving targets: clicks, words and choices change little or nothing
    r"(copy-paste|drag|draw|highlight|scroll-text).*|ascending-numbers|bisect-angle|chase-circle|circle-center|find-midpoint"
    r"|hot-cold|hover-shape|moving-items|resize-textarea|right-angle|simon-says|stock-market|terminal|text-editor"
)
ENDS = re.compile(r"\b(submit|ok|done|login|log in|send|close|book|order)\b", re.IGNORECASE)
WORDS = ("apple", "blue", "cat", "delta", "echo", "forest", "green", "hotel", "7", "42", "10/12/2016")
SETTLE_MS = 500  # of the page's time
_UNIT = re.compile(r"<[^>]*>[^<]*|[^<]+")  # a tag with the text behind it


@dataclass
class MiniWobRecorder(JobRecorder):
    """Records episodes on MiniWoB++'s pages; the fields are the options of ``swirl record miniwob``.

    An episode is a task with a seed. Its actions are drawn at random among those that can be done, more often where the task
    names the element or the option, and rarely where the episode would end.

    Attributes:
        tasks: Names of pages; empty for all but those that need drags or drawings.
        train: Episodes of each task in the training split; splits differ in their seeds.
        val: The same for validation.
        test: The same for the test.
        steps: Most actions of an episode.
        page_tokens: Tokens (words and punctuation marks) of a page that are kept around the acted-on element.
        target: What the next state is: the whole ``page``, or its ``changes``, each a tag with the text behind it.
        no_ops: Actions after which the page reads as before: ``keep`` or ``drop``; counted in the manifest in any case.
        seed: Seed of the actions.
        workers: Browsers side by side.
        timeout: Seconds that one answer of a page may take; a page that hangs is stopped, counted, and keeps what it had.
    """

    tasks: Sequence[str] = ()
    train: int = 20
    val: int = 2
    test: int = 5
    steps: int = 6
    page_tokens: int = 1500
    target: Literal["page", "changes"] = "page"
    no_ops: Literal["keep", "drop"] = "keep"
    seed: int = 0
    workers: int = 2
    timeout: float = 30.0
    _jobs: dict[str, str] = field(default_factory=dict, init=False, repr=False)  # job -> split

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option.
        """
        for name, least in (("train", 1), ("val", 0), ("test", 0), ("steps", 1), ("workers", 1), ("page_tokens", 8)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"miniwob: {name} must be at least {least}, got {value}")
        if self.timeout <= 0:
            raise ValueError(f"miniwob: timeout must be positive, got {self.timeout}")

    def jobs(self) -> Sequence[str]:
        """One job a task and seed: ``task/seed``.

        Raises:
            ImportError: naming the extra, if the pages are not installed.
            ValueError: for a task that there is no page of.
        """
        if not self._jobs:
            pages = sorted(path.stem for path in pages_folder().glob("*.html"))
            if strange := [task for task in self.tasks if task not in pages]:
                raise ValueError(f"miniwob: tasks: there is no {strange[0]!r}{did_you_mean(strange[0], pages)}")
            for task in self.tasks or [page for page in pages if not NOT_PLAYED.fullmatch(page)]:
                for split in SPLITS:
                    seeds = range(FIRST_SEED[split], FIRST_SEED[split] + getattr(self, split))
                    self._jobs |= {f"{task}/{seed}": split for seed in seeds}
        return list(self._jobs)

    def split_of(self, episode: str) -> str | None:
        """The split that an episode's seed belongs to."""
        return self._jobs[episode]

    def manifest(self) -> dict[str, Any]:
        """Pages, version, options and counts."""
        name = {"simulator": "miniwob", "version": version("miniwob")}
        return {**name, **self.options(), "recorder_counts": dict(self.counts)}

    def run(self, jobs: Sequence[str]) -> Iterator[tuple[str, JobResult]]:
        """Runs jobs in several browsers."""
        return run_side_by_side(jobs, self._open, self._episode, self.workers)

    def _open(self) -> Browser:
        browser = Browser(self.timeout)
        _prepare(browser)
        return browser

    def _episode(self, browser: Browser, job: str) -> JobResult:
        episode = _Episode(self, browser, job)
        try:
            episode.play()
        except SimulatorError:
            episode.counts["pages that hang, stopped"] += 1
            browser.restart()
            _prepare(browser)
        return JobResult(episode.kept, dict(episode.counts))


class MiniWobDataModule(WorldDataModule):
    """MiniWoB++'s pages in a headless browser.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: MiniWobRecorder = MiniWobRecorder(),  # noqa: B008  # holds options only
        path: str = "data/miniwob",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


def pages_folder() -> Path:
    """Folder of the pages in the installed package, which is not imported: it would bring a driver and simulators with it.

    Raises:
        ImportError: naming the extra.
    """
    found = importlib.util.find_spec("miniwob")
    if found is None or found.origin is None:
        raise ImportError('miniwob is not installed: pip install "swirl-lightning[miniwob]"')
    return Path(found.origin).parent / "html" / "miniwob"


def page_changes(before: str, after: str) -> str:
    """What a page has that the one before did not have, in its order, and after ``- `` what is gone.

    Args:
        before: HTML with ``backend_node_id`` attributes, which are not compared.
        after: HTML of the same page later.

    Returns:
        Tags with the text behind them; an element that changed shows as it is now. ``no change`` if there is none.
    """
    old, new = ([clean(NODE_ID.sub("", unit)) for unit in _UNIT.findall(page)] for page in (before, after))
    changed: list[str] = []
    for kind, i, end, j, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            changed += [f"- {unit}" for unit in old[i:end]] if end - i != stop - j else []
            changed += new[j:stop]
    return " ".join(changed) or "no change"


def _prepare(browser: Browser) -> None:
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=SCRIPT.read_text(encoding="utf-8"))
    browser.call("Emulation.setTimezoneOverride", timezoneId="UTC")
    browser.call("Emulation.setLocaleOverride", locale="en-US")


class _Episode:
    """Plays a page and keeps transitions."""

    def __init__(self, recorder: MiniWobRecorder, browser: Browser, job: str) -> None:
        self.recorder, self.browser, self.job = recorder, browser, job
        self.rng = random.Random(f"{recorder.seed}/{job}")
        self.kept: list[Transition] = []
        self.counts: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()  # actions of this episode
        self.context = ""

    def play(self) -> None:
        """Opens the page and acts until it is over."""
        task, seed = self.job.split("/")
        self._start(
            pages_folder() / f"{task}.html", int(seed), "test" if self.recorder.split_of(self.job) == "test" else "train"
        )
        before = self._state()
        for step in range(self.recorder.steps):
            actions = self.browser.evaluate("swirl.actions()")
            if before["done"] or not actions:
                return
            index, value = self._choose(actions, last=step == self.recorder.steps - 1)
            self._act(index, actions[index]["op"], value)
            after = self._state()
            self._add(step, actions[index], value, before["page"], after["page"])
            before = after

    def _start(self, page: Path, seed: int, mode: str) -> None:
        browser = self.browser
        browser.call("Emulation.setVirtualTimePolicy", policy="pause")
        browser.call("Page.navigate", url=page.as_uri())
        self._settle("pauseIfNetworkFetchesPending")
        # no time-out, and test wordings where a page has some
        browser.evaluate(f"Math.seedrandom({seed}); core.EPISODE_MAX_TIME = 2 ** 30; core.setDataMode({mode!r}); 0")
        browser.evaluate("core.startEpisodeReal(); 0")
        self._settle()
        utterance = browser.evaluate("core.getUtterance()")
        self.context = clean(utterance["utterance"] if isinstance(utterance, dict) else utterance)

    def _settle(self, policy: str = "advance") -> None:
        """Lets the page's clock run on by SETTLE_MS, which takes as long as the page has work to do."""
        expired = "Emulation.virtualTimeBudgetExpired"
        self.browser.wait_for(expired, "Emulation.setVirtualTimePolicy", policy=policy, budget=SETTLE_MS)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.browser.evaluate("swirl.state()")
        return state

    def _choose(self, actions: Sequence[dict[str, Any]], last: bool) -> tuple[int, str]:
        """Draws an action, and the text or option where it needs one."""
        weights = []
        for action in actions:
            name = action["name"].lower()
            weight = 3.0 if action["op"] != "CLICK" else 1.0
            weight *= 3.0 if len(name) > 1 and name in self.context.lower() else 1.0
            weight *= 0.1 if not last and ENDS.search(name) else 1.0
            weights.append(weight * 0.2 ** self._taken[action["phrase"]])
        index = self.rng.choices(range(len(actions)), weights)[0]
        action = actions[index]
        self._taken[action["phrase"]] += 1
        if action["op"] == "TYPE":
            asked = re.findall(r'"([^"]+)"', self.context) or re.findall(r"\b(?:[A-Z]\w+|\d[\d/:.]*)", self.context)
            return index, self.rng.choice([*asked, self.rng.choice(WORDS)])
        if action["op"] == "SELECT":
            asked = [option for option in action["options"] if option and option in self.context]
            return index, self.rng.choice([*asked, self.rng.choice(action["options"])])
        return index, ""

    def _act(self, index: int, operation: str, value: str) -> None:
        """Acts with the browser's own mouse and keys, and leaves the mouse outside the page."""
        browser = self.browser
        if operation == "SELECT":
            browser.evaluate(f"swirl.choose({index}, {json.dumps(value)})")
        else:
            x, y = browser.evaluate(f"swirl.place({index})")
            for kind in ("mousePressed", "mouseReleased"):
                browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            if operation == "TYPE":
                browser.evaluate(f"swirl.take({index})")
                for character in value:
                    browser.call("Input.dispatchKeyEvent", type="keyDown", text=character, key=character)
                    browser.call("Input.dispatchKeyEvent", type="keyUp", key=character)
            browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=700, y=500)
        self._settle()

    def _add(self, step: int, action: dict[str, Any], value: str, before: str, after: str) -> None:
        same = before == after
        self.counts["no-op steps"] += same
        if same and self.recorder.no_ops == "drop":
            self.counts["no-op steps dropped"] += 1
            return
        state = self._cut(before, action["node"])
        if self.recorder.target == "page":
            next_state = self._cut(after, action["node"])
        else:
            next_state = self._cut(page_changes(before, after), None)
        phrase = clean(f"{action['phrase']} -> {action['op']}" + (f": {value}" if value else ""))
        self.kept.append(Transition(state, next_state, phrase, context=self.context, episode=self.job, step=step))

    def _cut(self, page: str, node: str | None) -> str:
        text, left_out = cut_page(page, node, self.recorder.page_tokens)
        self.counts["pages cut"] += left_out > 0
        return text
