"""BFCL's simulated APIs (Berkeley Function Calling Leaderboard, multi-turn sets) as a world of tool calls.

Every call of the reference dialogues is executed against the simulators of the PyPI package ``bfcl-eval``, and beside each of
them, on copies of the simulator, calls that a careless user might make: an argument is missing, has a wrong type or another
value, or a call comes out of turn. So a state is seen under many calls, and many answers are errors. The state is what the
API holds publicly, the action the call, the next state the answer in MirrorAPI's two fields with what it changed::

    {"ticket_queue": [{"id": 1, "status": "Open", ...}], "ticket_counter": 2, "current_user": "ann"}
    close_ticket(ticket_id=1)
    {"error": "", "response": {"status": "Ticket 1 has been closed."}, "changed": {"ticket_queue/0/status": "Closed"}}

An episode is a scenario. The sets ``miss_func`` and ``miss_param`` ask for the same calls in other words; what they repeat is
left out and counted, and what they add belongs to the same episode: no split sees half of a scenario.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.tools.bfcl_calls import KINDS, Call, Kind, Values, perturb
from swirl_lightning.environments.tools.bfcl_state import changes, render, state_of
from swirl_lightning.types import Transition

APIS = {  # class: module of the simulator, file of its documentation
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
}
Set = Literal["base", "miss_func", "miss_param", "long_context"]
SETS: tuple[Set, ...] = get_args(Set)
_TRIED = 3  # other values of an argument, to see whether the next state tells it
_SET = re.compile(r"\{('[^'{}]*'(?:, '[^'{}]*')*)\}")  # printed sets: their order differs from one process to the next
_SIMULATORS = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"


@dataclass
class BfclRecorder:
    """Executes BFCL's multi-turn dialogues; the fields are the options of ``swirl record bfcl``.

    Attributes:
        sets: Which multi-turn sets. ``long_context`` fills its scenarios with text: states of up to 20,000 characters.
        apis: Calls of which APIs become transitions; others are executed all the same.
        functions: Likewise, calls of which functions; None for all.
        perturbations: Calls beside every reference call, shared among the kinds.
        kinds: ``missing`` leaves a required argument out, ``type`` gives one another type, ``value`` another value of its type
            (out of the same function's calls in any dialogue, or out of this dialogue and state), ``order`` makes another call
            of the dialogue now.
        left_out: Fields of the APIs' states that are not shown, neither before nor after, e.g. a long table that never changes.
        target: The next state is the answer with the fields that it changed (``changes``), or with the whole state (``full``;
            then a state holds the answer to the call before).
        ambiguous: ``drop`` leaves out, and counts, the calls that state and next state do not tell: another recorded call of
            the scenario shares both, or another value of one argument was tried and gave the same next state.
        errors: ``drop`` leaves out, and counts, the calls that are answered with an error. Errors name arguments: a policy that
            is paid for letting its judge name the call (Phase I) learns to answer with them where there are any.
        docs: The documentation of the called function is the context, as in MirrorAPI; otherwise the API's name is.
        seed: Seed of the perturbations.
    """

    sets: Sequence[Set] = SETS
    apis: Sequence[str] = tuple(APIS)
    functions: Sequence[str] | None = None
    perturbations: int = 16
    kinds: Sequence[Kind] = KINDS
    left_out: Sequence[str] = ()
    target: Literal["changes", "full"] = "changes"
    ambiguous: Literal["keep", "drop"] = "keep"
    errors: Literal["keep", "drop"] = "keep"
    docs: bool = True
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option, its value and what there is.
        """
        for name, chosen, known in (("sets", self.sets, SETS), ("apis", self.apis, APIS), ("kinds", self.kinds, KINDS)):
            if not chosen or set(chosen) - set(known):
                raise ValueError(f"bfcl: {name} must be some of {', '.join(known)}, got {list(chosen)}")
        if self.functions is not None and not self.functions:
            raise ValueError("bfcl: functions is empty; name some, or null for all")
        if self.perturbations < 0:
            raise ValueError(f"bfcl: perturbations must be >= 0, got {self.perturbations}")

    def episodes(self) -> int:
        """Number of dialogues."""
        return len(self._dialogues())

    def manifest(self) -> dict[str, Any]:
        """Simulator, options and counts."""
        options = {name: getattr(self, name) for name in ("functions", "perturbations", "target", "ambiguous", "errors")}
        options |= {"docs": self.docs, "seed": self.seed}
        lists = {name: list(getattr(self, name)) for name in ("sets", "apis", "kinds", "left_out")}
        return {
            "simulator": "bfcl-eval",
            "version": version("bfcl-eval"),
            **options,
            **lists,
            "calls": dict(sorted(self.counts.items())),
        }

    def record(self) -> Iterator[list[Transition]]:
        """Yields the transitions of one dialogue after the other; a dialogue without a call of ``apis`` is an empty list.

        Raises:
            ImportError: with the lines that install what is missing.
        """
        simulators = {api: getattr(_module(f"{_SIMULATORS}.{module}"), api) for api, module in APIS.items()}
        docs = _documentation() if self.docs else {}
        self.counts = Counter()
        scenarios = {number: [_Dialogue(row, simulators) for row in rows] for number, rows in self._dialogues().items()}
        every = [dialogue for dialogues in scenarios.values() for dialogue in dialogues]
        self._check_names(every)
        values: dict[tuple[str, str], list[Any]] = {}
        for call in (call for dialogue in every for call in dialogue.calls):
            for name, value in call.arguments.items():
                values.setdefault((call.function, name), []).append(value)
        for number, dialogues in scenarios.items():
            episode = _Episode(f"bfcl/{number}", self, docs, values)
            for dialogue in dialogues:
                episode.play(dialogue)
            yield self._known(episode.transitions) if self.ambiguous == "drop" else episode.transitions

    def _check_names(self, dialogues: Sequence[_Dialogue]) -> None:
        """Refuses names that no simulator has.

        Raises:
            ValueError: naming the option and the names.
        """
        functions = {name for dialogue in dialogues for name in dialogue.api_of}
        fields = {name for dialogue in dialogues for instance in dialogue.instances.values() for name in state_of(instance)}
        for option, chosen, known in (("functions", self.functions, functions), ("left_out", self.left_out, fields)):
            if unknown := set(chosen or ()) - known:
                raise ValueError(f"bfcl: {option}: no simulator has {sorted(unknown)}; there are {', '.join(sorted(known))}")

    def _known(self, transitions: Sequence[Transition]) -> list[Transition]:
        """The transitions whose call no other one shares state and next state with, numbered anew."""
        shared = Counter((t.state, t.next_state) for t in transitions)
        kept = [t for t in transitions if shared[t.state, t.next_state] == 1]
        self.counts["left out: ambiguous"] += len(transitions) - len(kept)
        return [replace(t, step=step) for step, t in enumerate(kept)]

    def _dialogues(self) -> dict[int, list[dict[str, Any]]]:
        """Number of a scenario to its dialogues in the sets, each with the reference calls in ``calls``."""
        found: dict[int, list[dict[str, Any]]] = {}
        for name in self.sets:
            file = f"BFCL_v4_multi_turn_{name}.json"
            answers = {row["id"]: row["ground_truth"] for row in _lines(f"possible_answer/{file}")}
            for row in _lines(file):
                calls = [call for turn in answers[row["id"]] for call in turn]
                number = int(row["id"].rpartition("_")[2])
                found.setdefault(number, []).append({**row, "calls": calls, "long_context": name == "long_context"})
        return dict(sorted(found.items()))


class BfclDataModule(WorldDataModule):
    """BFCL's simulated APIs: calls, wrong calls, answers.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: BfclRecorder = BfclRecorder(),  # noqa: B008  # holds options only
        path: str = "data/bfcl",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


class _Dialogue:
    """The simulators of one dialogue, and its reference calls."""

    def __init__(self, row: Mapping[str, Any], simulators: Mapping[str, type]) -> None:
        self.instances: dict[str, Any] = {}
        for api in row["involved_classes"]:
            self.instances[api] = simulators[api]()
            if hasattr(self.instances[api], "_load_scenario"):
                scenario = copy.deepcopy(row["initial_config"].get(api, {}))
                self.instances[api]._load_scenario(scenario, long_context=row["long_context"])
        self.parameters: dict[str, Mapping[str, inspect.Parameter]] = {}
        self.api_of: dict[str, str] = {}
        for api, instance in self.instances.items():
            for name, method in inspect.getmembers(instance, inspect.ismethod):
                if not name.startswith("_"):
                    self.parameters[name], self.api_of[name] = inspect.signature(method).parameters, api
        self.calls = [self.parse(text) for text in row["calls"]]

    def parse(self, text: str) -> Call:
        """A reference call, with every argument by name. Only literals are read: nothing of the text is run.

        Raises:
            ValueError: if it is no call of a function that the dialogue has.
        """
        node = ast.parse(text, mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in self.api_of:
            raise ValueError(f"bfcl: {text!r} is no call of this dialogue's functions; is this another version of bfcl-eval?")
        given = dict(zip(self.parameters[node.func.id], map(ast.literal_eval, node.args), strict=False))
        given |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        return Call(self.api_of[node.func.id], node.func.id, given)


class _Moment(NamedTuple):
    """The simulators as they are before a reference call, by API."""

    instances: Mapping[str, Any]  # copies
    states: Mapping[str, dict[str, Any]]
    texts: Mapping[str, str]  # the states as transitions have them


class _Episode:
    """Collects the transitions of a scenario."""

    def __init__(self, name: str, options: BfclRecorder, docs: Mapping[tuple[str, str], str], values: Values) -> None:
        self.name, self.options, self.docs, self.values = name, options, docs, values
        self.rng = random.Random(f"{options.seed}/{name}")
        self.draws = random.Random(f"{options.seed}/{name}/told")  # of values tried only
        self.transitions: list[Transition] = []
        self._seen: set[tuple[str, str]] = set()  # state and call

    def play(self, dialogue: _Dialogue) -> None:
        """Executes a dialogue, and around each of its calls the perturbed ones."""
        last: dict[str, dict[str, Any]] = {api: {"error": "", "response": ""} for api in dialogue.instances}
        for call in dialogue.calls:
            moment = self._moment(dialogue, last)
            last[call.api] = self._execute(dialogue.instances[call.api], call, "reference", moment)
            tried = {str(call)}
            for draw in range(4 * self.options.perturbations):  # not every draw is a new call
                if len(tried) > self.options.perturbations:
                    break
                kind = self.options.kinds[draw % len(self.options.kinds)]
                other = self._perturb(kind, call, dialogue, moment) or self._perturb("value", call, dialogue, moment)
                if other is not None and str(other) not in tried:
                    tried.add(str(other))
                    if self._wanted(other, moment):
                        self._execute(copy.deepcopy(moment.instances[other.api]), other, kind, moment)

    def _told(self, call: Call, moment: _Moment, next_state: str) -> bool:
        """Whether other values of each argument that were tried give other next states."""
        for name, value in call.arguments.items():
            others = [x for x in self.values.get((call.function, name), ()) if type(x) is type(value) and x != value]
            for other in self.draws.sample(others, min(_TRIED, len(others))):
                instance = copy.deepcopy(moment.instances[call.api])
                answer = answer_of(instance, call._replace(arguments={**call.arguments, name: other}))
                try:
                    if self._next_state(answer, instance, call.api, moment) == next_state:
                        return False
                except RecursionError:  # a state without end is another one
                    continue
        return True

    def _next_state(self, answer: Mapping[str, Any], instance: Any, api: str, moment: _Moment) -> str:
        after = self._state(instance)
        whole = self.options.target == "full"
        return _json({**answer, "state": after} if whole else {**answer, **changes(moment.states[api], after)})

    def _moment(self, dialogue: _Dialogue, last: Mapping[str, Mapping[str, Any]]) -> _Moment:
        states = {api: self._state(instance) for api, instance in dialogue.instances.items()}
        whole = self.options.target == "full"
        texts = {api: _json({**last[api], "state": state} if whole else state) for api, state in states.items()}
        return _Moment(copy.deepcopy(dialogue.instances), states, texts)

    def _state(self, instance: Any) -> dict[str, Any]:
        return {name: value for name, value in state_of(instance).items() if name not in self.options.left_out}

    def _perturb(self, kind: str, call: Call, dialogue: _Dialogue, moment: _Moment) -> Call | None:
        return perturb(kind, call, dialogue, moment.states[call.api], self.values, self.rng)

    def _wanted(self, call: Call, moment: _Moment) -> bool:
        if call.api not in self.options.apis:
            self.options.counts["left out: other APIs"] += 1
        elif self.options.functions is not None and call.function not in self.options.functions:
            self.options.counts["left out: other functions"] += 1
        elif (moment.texts[call.api], str(call)) in self._seen:
            self.options.counts["left out: repeated"] += 1
        else:
            return True
        return False

    def _execute(self, instance: Any, call: Call, kind: str, moment: _Moment) -> dict[str, Any]:
        """Executes a call and keeps the transition if it is wanted; returns the answer."""
        counts, before = self.options.counts, moment.states[call.api]
        answer = answer_of(instance, call)
        try:
            after, next_state = self._state(instance), self._next_state(answer, instance, call.api, moment)
        except RecursionError:  # the simulator lets a directory be moved into itself
            counts["left out: endless state"] += 1
            return answer
        if kind == "reference" and not self._wanted(call, moment):
            return answer
        self._seen.add((moment.texts[call.api], str(call)))
        if self.options.errors == "drop" and answer["error"]:
            counts["left out: errors"] += 1
            return answer
        if self.options.ambiguous == "drop" and not self._told(call, moment, next_state):
            counts["left out: ambiguous"] += 1
            return answer
        context = self.docs.get((call.api, call.function), call.api)
        step = len(self.transitions)
        self.transitions.append(
            Transition(moment.texts[call.api], next_state, str(call), context, episode=self.name, step=step)
        )
        counts.update([kind, call.api, "answers with an error" if answer["error"] else "answers without an error"])
        counts["state changed"] += before != after
        return answer


def answer_of(instance: Any, call: Call) -> dict[str, Any]:
    """Executes a call; the answer in MirrorAPI's fields, exceptions as BFCL's own executor words them."""
    try:
        result = render(getattr(instance, call.function)(**call.arguments))
    except Exception as error:  # whatever a simulator makes of a wrong call is its answer
        return {"error": f"Error during execution: {error}", "response": ""}
    if isinstance(result, dict) and result.get("error"):
        rest = {name: value for name, value in result.items() if name != "error"}
        message = result["error"]
        return {"error": _SET.sub(_sorted_set, message) if isinstance(message, str) else message, "response": rest or ""}
    return {"error": "", "response": "" if result is None else result}


def _sorted_set(found: re.Match[str]) -> str:
    return f"{{{', '.join(sorted(found[1].split(', ')))}}}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _module(name: str) -> Any:
    """A module of bfcl-eval.

    Raises:
        ImportError: with the lines that install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{error}: pip install --no-deps bfcl-eval && pip install "swirl-lightning[bfcl]" (--no-deps, because bfcl-eval '
            "pins the clients of every model provider, none of which its simulators use)"
        ) from error


def _lines(name: str) -> Iterator[Any]:
    path = Path(_module("bfcl_eval").__path__[0]) / "data" / name
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _documentation() -> dict[tuple[str, str], str]:
    """Documentation of every function, as bfcl-eval hands it to models."""
    return {
        (api, row["name"]): _json(row) for api, module in APIS.items() for row in _lines(f"multi_turn_func_doc/{module}.json")
    }
