"""The recorder on BFCL's real simulators."""

import json
import os
import random
import subprocess
import sys
from itertools import islice, pairwise

import pytest

pytest.importorskip("bfcl_eval")
pytest.importorskip("mpmath")

from swirl_lightning.cli import main
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.environments.tools import bfcl
from swirl_lightning.environments.tools.bfcl import APIS, BfclRecorder, Call, answer_of, changes, perturb, render


def record(count=12, **options):
    """Transitions of the first dialogues of the base set."""
    recorder = BfclRecorder(**{"sets": ["base"], "perturbations": 6, **options})
    return list(islice(recorder.record(), count)), recorder


def test_a_reference_dialogue_step_by_step():
    (episode,), recorder = record(1, perturbations=0)
    assert [t.action for t in episode] == [
        "cd(folder='document')",
        "mkdir(dir_name='temp')",
        "mv(source='final_report.pdf', destination='temp')",
        "cd(folder='temp')",
        "grep(file_name='final_report.pdf', pattern='budget analysis')",
        "sort(file_name='final_report.pdf')",
        "cd(folder='..')",
        "mv(source='previous_report.pdf', destination='temp')",
        "cd(folder='temp')",
        "diff(file_name1='final_report.pdf', file_name2='previous_report.pdf')",
    ]
    assert [t.step for t in episode] == list(range(10))
    states, answers = (
        [json.loads(x) for x in column] for column in zip(*((t.state, t.next_state) for t in episode), strict=True)
    )
    assert states[0]["cwd"] == "workspace"
    assert set(states[0]["root"]) == {"document", "archive"}
    assert answers[0] == {
        "error": "",
        "response": {"current_working_directory": "document"},
        "changed": {"cwd": "workspace/document"},
    }
    assert answers[1]["changed"] == {"root/document/temp": {}}
    assert list(answers[2]["changed"]) == ["root/document/temp/final_report.pdf"]
    assert answers[2]["removed"] == ["root/document/final_report.pdf"]
    assert "changed" not in answers[4]  # grep only reads
    assert states[3]["root"]["document"]["temp"]["final_report.pdf"].startswith("Year2024")
    assert recorder.manifest()["calls"]["reference"] == 10


def test_the_same_options_give_the_same_transitions():
    assert record()[0] == record()[0]
    assert record()[0] != record(seed=1)[0]


def test_perturbed_calls_leave_the_dialogue_as_it_was():
    plain = [t for episode in record(perturbations=0)[0] for t in episode]
    mixed = {(t.episode, t.state, t.action): t.next_state for episode in record()[0] for t in episode}
    assert len(mixed) > 3 * len(plain)
    assert all(mixed[t.episode, t.state, t.action] == t.next_state for t in plain)


def test_there_are_errors_changes_and_every_kind():
    episodes, recorder = record(40, perturbations=12)
    counts = recorder.manifest()["calls"]
    transitions = [t for episode in episodes for t in episode]
    answers = [json.loads(t.next_state) for t in transitions]
    assert counts["answers with an error"] == sum(bool(answer["error"]) for answer in answers) > 100
    assert counts["answers without an error"] > 100
    assert counts["state changed"] == sum("changed" in answer or "removed" in answer for answer in answers) > 50
    assert sum(counts[kind] for kind in (*bfcl.KINDS, "reference")) == len(transitions)
    assert all(counts[kind] > 10 for kind in bfcl.KINDS)
    assert any("missing 1 required positional argument" in answer["error"] for answer in answers)
    assert all({"error", "response"} <= answer.keys() for answer in answers)


def test_a_call_in_a_state_has_one_answer_and_stands_once():
    for episode in record()[0]:
        assert len({(t.state, t.action) for t in episode}) == len(episode)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", "cd()"),
        ("type", {"cd(folder=8)", "cd(folder=['document'])", "cd(folder=None)"}),
        ("value", {f"cd(folder={x!r})" for x in ("temp", "..", "archive", "elsewhere")}),
        ("order", {"mkdir(dir_name='temp')"}),
    ],
)
def test_kinds_of_wrong_calls(kind, expected):
    recorder = BfclRecorder(sets=["base"])
    simulators = {api: getattr(bfcl._module(f"{bfcl._SIMULATORS}.{module}"), api) for api, module in APIS.items()}
    dialogue = bfcl._Dialogue(recorder._dialogues()[0][0], simulators)
    call = Call("GorillaFileSystem", "cd", {"folder": "document"})
    state = bfcl.state_of(dialogue.instances[call.api])
    rng, values = random.Random(0), {("cd", "folder"): ["elsewhere", "document"]}
    drawn = {str(perturb(kind, call, dialogue, state, values, rng)) for _ in range(300)}
    assert str(call) not in drawn or kind == "order"
    assert drawn == {expected} if isinstance(expected, str) else expected <= drawn
    assert perturb("missing", Call("MathAPI", "pi", {}), dialogue, state, values, rng) is None


def test_variants_of_a_scenario_are_one_episode():
    recorder = BfclRecorder(perturbations=0)
    episodes = list(recorder.record())
    assert recorder.episodes() == len(episodes) == 200
    counts = recorder.manifest()["calls"]
    assert counts["left out: repeated"] > 2000  # of 4,625 reference calls in the four sets
    assert counts["reference"] + counts["left out: repeated"] == 4625
    assert len({episode[0].episode for episode in episodes}) == 200
    assert set(APIS) <= counts.keys()


def test_the_whole_state_as_target():
    (episode,), _ = record(1, perturbations=0, target="full")
    for before, after in pairwise(episode):
        assert before.next_state == after.state  # so copying it means: nothing new
    first = json.loads(episode[0].state)
    assert (first["error"], first["response"]) == ("", "")
    assert json.loads(episode[0].next_state)["state"]["cwd"] == "workspace/document"


def test_context_is_the_documentation_or_the_name():
    documented = json.loads(record(1)[0][0][0].context)
    assert documented["name"] == "cd"
    assert "folder" in documented["parameters"]["properties"]
    assert record(1, docs=False)[0][0][0].context == "GorillaFileSystem"


def test_chosen_apis_only():
    episodes, recorder = record(80, apis=["TicketAPI"], docs=False)
    assert {t.context for episode in episodes for t in episode} == {"TicketAPI"}
    assert [] in episodes
    assert recorder.manifest()["calls"]["left out: other APIs"] > 0


def test_changes_by_hand():
    before = {"a": 1, "b": {"x": [1, 2], "y": "gone"}, "c": [1, 2]}
    after = {"a": 2, "b": {"x": [1, 3, {"new": 0}]}, "c": [1], "d": None}
    assert changes(before, after) == {
        "changed": {"d": None, "a": 2, "b/x/2": {"new": 0}, "b/x/1": 3, "c": [1]},
        "removed": ["b/y"],
    }
    assert changes(before, before) == {}


def test_whatever_a_simulator_does_is_an_answer():
    class Odd:
        def boom(self):
            raise KeyError("\x00 é")

        def none(self):
            return None

        def half(self):
            return {"error": "late", "kept": {1, 2}}

    said = [answer_of(Odd(), Call("Odd", name, {})) for name in ("boom", "none", "half")]
    assert said[0] == {"error": "Error during execution: '\\x00 é'", "response": ""}
    assert said[1] == {"error": "", "response": ""}
    assert said[2] == {"error": "late", "response": {"kept": [1, 2]}}
    assert render((1, {2: object}))[1]["2"].startswith("<class")


def test_record_command(tmp_path, capsys):
    out = tmp_path / "calls"
    options = ["--env.sets", "[base]", "--env.perturbations", "2", "--env.docs", "false"]
    assert main(["record", "bfcl", "--out", str(out), *options]) == 0
    table = read_transitions(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["transitions"] == len(table) > 2000
    assert manifest["simulator"] == "bfcl-eval"
    splits = {}
    for episode, split in zip(table.column("episode"), table.column("split"), strict=True):
        assert splits.setdefault(episode, split) == split
    assert set(splits.values()) == {"train", "val", "test"}
    assert "train episodes" in capsys.readouterr().out


def test_bad_options_and_missing_packages_are_named(monkeypatch):
    with pytest.raises(ValueError, match=r"apis must be some of .*TicketAPI.*, got \['Tickets'\]"):
        BfclRecorder(apis=["Tickets"])
    with pytest.raises(ValueError, match="perturbations must be >= 0"):
        BfclRecorder(perturbations=-1)
    with pytest.raises(ImportError, match=r'pip install --no-deps bfcl-eval && pip install "swirl-lightning\[bfcl\]"'):
        bfcl._module("bfcl_eval_is_not_here")
    dialogue = object.__new__(bfcl._Dialogue)
    dialogue.api_of = {}
    with pytest.raises(ValueError, match=r"'__import__\(\"os\"\)' is no call"):
        dialogue.parse('__import__("os")')


def test_sets_are_printed_in_one_order_whatever_the_process():
    script = (
        "from swirl_lightning.environments.tools.bfcl import BfclRecorder as R\n"
        "r = R(sets=['base'], apis=['TravelAPI'], perturbations=8)\n"
        "print(hash(tuple(tuple(map(len, (t.state, t.action))) for e in r.record() for t in e)))\n"
        "print(*[t.next_state for e in r.record() for t in e if 'Must be one of' in t.next_state][:20])"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert "{'business', 'economy', 'first'}" in said[0]


def test_only_the_functions_asked_for_are_kept_the_others_are_executed():
    whole, _ = record(6, perturbations=0)
    (chosen, recorder) = record(6, perturbations=0, functions=["cd", "mv"])
    wanted = [(t.state, t.action, t.next_state) for episode in whole for t in episode if t.action.startswith(("cd(", "mv("))]
    assert [(t.state, t.action, t.next_state) for episode in chosen for t in episode] == wanted
    assert recorder.manifest()["calls"]["left out: other functions"] == sum(map(len, whole)) - len(wanted) > 0


def test_calls_that_the_next_state_does_not_tell_are_dropped_and_counted():
    options = {"perturbations": 12, "apis": ["TravelAPI"], "kinds": ["value", "order"]}
    kept, _ = record(None, **options)
    told, recorder = record(None, **options, ambiguous="drop")
    kept, told = ([t for episode in episodes for t in episode] for episodes in (kept, told))
    assert 0 < len(told) == len(kept) - recorder.manifest()["calls"]["left out: ambiguous"]
    assert {(t.episode, t.state, t.action, t.next_state) for t in told} < {
        (t.episode, t.state, t.action, t.next_state) for t in kept
    }
    support = [t for t in kept if t.action.startswith("contact_customer_support(")]
    assert support  # the answer is the same whatever the message
    assert not any(t.action.startswith("contact_customer_support(") for t in told)
    assert len({(t.episode, t.state, t.next_state) for t in told}) == len(told)
    steps = [t.step for t in told if t.episode == told[0].episode]
    assert steps == list(range(len(steps)))


def test_fields_that_are_left_out_show_nowhere():
    options = {"perturbations": 0, "apis": ["TradingBot"], "target": "full"}
    plain, _ = record(None, **options)
    short, _ = record(None, **options, left_out=["stocks", "account_info"])
    for before, after in zip(plain, short, strict=True):
        for one, other in zip(before, after, strict=True):
            state, shown = json.loads(one.state)["state"], json.loads(other.state)["state"]
            assert shown == {name: value for name, value in state.items() if name not in ("stocks", "account_info")}
            assert (one.action, json.loads(one.next_state)["response"]) == (
                other.action,
                json.loads(other.next_state)["response"],
            )


@pytest.mark.parametrize(
    "options",
    [{"functions": ["no_such_call"]}, {"functions": []}, {"left_out": ["no_such_field"]}],
)
def test_names_that_nothing_has_are_refused(options):
    with pytest.raises(ValueError, match="bfcl: "):
        record(3, **options)
