"""Five rows in the shape that each public data set's card describes, read by the YAML of howto/own-data.md as it stands."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.test_howto import BLOCKS, module


def turns(role, content, *pairs):
    return [{role: who, content: what} for who, what in pairs]


def agent_instruct(number):
    said = turns("from", "value", ("human", "You are in a house. THOUGHT and ACTION, please."), ("gpt", "OK."))
    said += turns("from", "value", ("human", f"You are in room {number}."), ("gpt", "THOUGHT: hm\nACTION: go to desk 1"))
    said += turns("from", "value", ("human", "On the desk 1, you see a mug."), ("gpt", "THOUGHT: good\nACTION: take mug 1"))
    said += turns("from", "value", ("human", "You pick up the mug 1."))
    return {"conversations": [{**turn, "loss": None} for turn in said], "id": f"alfworld_{number}"}


def toolbench(number):
    said = turns("from", "value", ("system", "You are AutoGPT."), ("user", f"Find film {number}."))
    said += turns("from", "value", ("assistant", 'Thought: \nAction: search\nAction Input: {"q": "film"}'))
    said += turns(
        "from", "value", ("function", '{"error": "", "response": "found"}'), ("assistant", "Thought: \nAction: Finish")
    )
    return {"id": str(number), "conversations": said}


def apigen(number):
    call = json.dumps({"name": "get_order", "arguments": {"id": number}})
    said = turns("from", "value", ("human", "Where is it?"), ("function_call", call), ("observation", '{"at": "sea"}'))
    return {
        "conversations": said + turns("from", "value", ("gpt", "At sea.")),
        "tools": '[{"name": "get_order"}]',
        "system": "Be kind.",
    }


def swe_agent(number):
    said = [
        {"role": "system", "system_prompt": "SETTING", "text": None},
        {"role": "user", "system_prompt": None, "text": "ISSUE"},
    ]
    said += [{"role": "ai", "system_prompt": None, "text": f"```\nls {number}\n```"}]
    said += [
        {"role": "user", "system_prompt": None, "text": "setup.py"},
        {"role": "ai", "system_prompt": None, "text": "submit"},
    ]
    return {
        "instance_id": "same",
        "trajectory": [{**turn, "mask": False, "cutoff_date": None} for turn in said],
        "target": True,
    }


def openhands(number):
    call = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    none = {"tool_calls": None, "tool_call_id": None, "name": None}
    said = [{"role": "system", "content": "You are OpenHands.", **none}, {"role": "user", "content": "Mend it.", **none}]
    said += [{"role": "assistant", "content": "Let me look.", **none, "tool_calls": [call]}]
    said += [{"role": "tool", "content": "setup.py", **none, "tool_call_id": "1", "name": "bash"}]
    return {"trajectory_id": f"t{number}", "instance_id": "i", "trajectory": said, "resolved": 1}


def tales(number):
    said = turns("role", "content", ("environment", "Welcome to TextWorld!"), ("agent", "look"), ("environment", "A kitchen."))
    return {"transcript_id": f"game_{number}", "framework": "textworld", "turns": json.dumps(said), "score": 1}


def mind2web(number):
    actions = [{"action_uid": f"{number}{k}", "cleaned_html": f"<p>{k}</p>", "operation": {"op": "CLICK"}} for k in range(3)]
    reprs = [f"[button] {k} -> CLICK" for k in range(3)]
    return {"annotation_id": f"a{number}", "confirmed_task": "rent a car", "action_reprs": reprs, "actions": actions}


def multimodal_mind2web(number):
    row = {"annotation_id": f"a{number // 3}", "confirmed_task": "rent a car", "target_action_index": str(number % 3)}
    row |= {"cleaned_html": f"<p>{number}</p>", "operation": '{"op": "CLICK", "value": ""}'}
    return {**row, "target_action_reprs": "[heading] CAR -> CLICK", "screenshot": {"bytes": b"png", "path": None}}


def weblinx(number):
    turn = (1, 2, 5, 6, 7)[number]  # turns without a page are not there
    return {
        "demo": "abc",
        "turn": turn,
        "clean_html": f"<p>{turn}</p>",
        "action": f'click(uid="{turn}")',
        "utterances": "hello",
    }


def pusht(number):
    row = {"observation.state": [number / 10, 0.5], "action": [number / 10 + 0.1, 0.5], "episode_index": number // 3}
    return {
        **row,
        "frame_index": number % 3,
        "timestamp": number / 10,
        "next.done": number % 3 == 2,
        "index": number,
        "task_index": 0,
    }


def decision_transformer(number):
    length = 4
    vectors = [[float(number), float(k)] for k in range(length)]
    return {
        "observations": vectors,
        "actions": [[float(k)] for k in range(length)],
        "rewards": [0.0] * length,
        "dones": [False] * length,
    }


SHAPES = {  # name: (row, pairs of five rows, of which labelled, first state, first action)
    "hub: THUDM/AgentInstruct": (agent_instruct, 15, 10, "You are in a house. THOUGHT and ACTION, please.", None),
    "hub: tuandunghcmut/toolbench-v1": (toolbench, 5, 5, "Find film 0.", 'search\nAction Input: {"q": "film"}'),
    "hub: Salesforce/APIGen-MT-5k": (apigen, 5, 5, "Where is it?", '{"name": "get_order", "arguments": {"id": 0}}'),
    "hub: nebius/SWE-agent-trajectories": (swe_agent, 5, 5, "ISSUE", "```\nls 0\n```"),
    "hub: nebius/SWE-rebench-openhands-trajectories": (
        openhands,
        5,
        5,
        "Mend it.",
        '{"name": "bash", "arguments": {"command": "ls"}}',
    ),
    "hub: PEARLS-Lab/TALES-Trajectories": (tales, 5, 5, "Welcome to TextWorld!", "look"),
    "hub: osunlp/Mind2Web": (mind2web, 10, 10, "<p>0</p>", "[button] 0 -> CLICK"),
    "hub: osunlp/Multimodal-Mind2Web": (multimodal_mind2web, 3, 3, "<p>0</p>", "[heading] CAR -> CLICK"),
    "hub: McGill-NLP/WebLINX": (weblinx, 3, 3, "<p>1</p>", 'click(uid="1")'),
    "hub: lerobot/pusht_keypoints": (pusht, 3, 3, "[0.0, 0.5]", "[0.1, 0.5]"),
    "hub: edbeeching/decision_transformer_gym_replay": (decision_transformer, 15, 15, "[0.0, 0.0]", "[0.0]"),
}


def test_every_yaml_of_the_page_has_its_shape_here():
    assert set(SHAPES) == {name for name in BLOCKS if name.startswith("hub: ")}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_shape_of_a_public_data_set_is_read(tmp_path, name, kind):
    make, count, labelled, state, action = SHAPES[name]
    rows = [make(number) for number in range(5)]
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "screenshot"}) + "\n" for row in rows))
    made = module(BLOCKS[name], path=str(path), val_fraction=0.0, test_fraction=0.0, labelled_fraction=1.0)
    made.setup("init")
    assert len(made.labelled) == labelled
    assert len(made.labelled) + len(made.unlabelled) == count
    first = min([*made.labelled, *made.unlabelled], key=lambda pair: (pair.episode, pair.step))
    assert first.state == state
    assert getattr(first, "action", None) == action


def test_contexts_hold_what_the_cards_say_beside_the_turns(tmp_path):
    for name, make, context in (
        ("hub: Salesforce/APIGen-MT-5k", apigen, 'Be kind.\n[{"name": "get_order"}]\nWhere is it?'),
        ("hub: nebius/SWE-agent-trajectories", swe_agent, "SETTING\nISSUE"),
        ("hub: McGill-NLP/WebLINX", weblinx, "hello"),
    ):
        path = tmp_path / f"{make.__name__}.parquet"
        pq.write_table(pa.Table.from_pylist([make(number) for number in range(5)]), path)
        made = module(BLOCKS[name], path=str(path), val_fraction=0.0, test_fraction=0.0, labelled_fraction=1.0)
        made.setup("init")
        assert {pair.context for pair in made.labelled} == {context}
