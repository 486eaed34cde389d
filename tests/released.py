"""Tiny files in the formats of the paper's text benchmarks, made here: nothing of the released data is copied."""

import json

from transformers import AutoTokenizer

from swirl_lightning.cli import main
from swirl_lightning.data.schema import write_transitions
from swirl_lightning.environments.tools.stabletoolbench import TEST_SPLITS
from swirl_lightning.types import Transition


def call(api, k, output=None):
    """A record of MirrorAPI."""
    doc = {"api_name": api, "api_description": 'Say "hé"\n\nRequest:\nnot this', "required_parameters": [], "tool_name": "T"}
    request = {"category": "C", "tool_name": "T", "api_name": api, "tool_input": json.dumps({"n": k}), "strip": "filter"}
    return {
        "system": "You are an API server.",
        "instruction": f"API doc:\n{doc}\n\nRequest:\n{request}",
        "output": json.dumps({"error": "", "response": f"{api} {k} \x07 ünï"}) if output is None else output,
    }


def mirror_api(folder):
    """MirrorAPI's training file and the folder of its test splits."""
    train, test = folder / "train_sft.json", folder / "test_sft"
    test.mkdir(parents=True)
    train.write_text(json.dumps([call(f"api{k % 20}", k) for k in range(60)]))
    for split in TEST_SPLITS:
        (test / f"{split}.json").write_text(json.dumps([call(f"{split}-api", k) for k in range(3)]))
    return train, test


def page(k, filler=0):
    """A cleaned page; the button is element 7."""
    other = "".join(f'<li backend_node_id="{1000 + i}">entry {i}</li>' for i in range(filler))
    return f'<html backend_node_id="1"><ul>{other}</ul><button backend_node_id="7">Search {k}</button><ul>{other}</ul></html>'


def action(k, html=None, node="7", **changes):
    """An action of Mind2Web on the button of ``page(k)``."""
    return {
        "action_uid": f"a{k}",
        "raw_html": "<html>raw</html>",
        "cleaned_html": page(k) if html is None else html,
        "operation": {"op": "TYPE", "original_op": "TYPE", "value": f"word {k}"},
        "pos_candidates": [] if node is None else [{"tag": "button", "backend_node_id": node, "attributes": "{}"}],
        "neg_candidates": [],
        **changes,
    }


def task(name, actions, **changes):
    """A task of Mind2Web."""
    return {
        "annotation_id": name,
        "website": "shop",
        "domain": "Shopping",
        "subdomain": "General",
        "confirmed_task": "Find a \u2028 lamp \x07 für mich",
        "action_reprs": [f"[button]  Search {k} -> TYPE: word {k}" for k in range(len(actions or []))],
        "actions": actions,
        **changes,
    }


def mind2web(folder, filler):
    """Mind2Web's training file and its three test splits, laid under ``folder`` as both ``mind2web.yaml`` of ``configs`` say.

    Pages have up to ``filler`` entries before and after the button.
    """
    at = folder / "data" / "released" / "mind2web"
    for split, tasks in {"train": 40, "test_task": 2, "test_website": 1, "test_domain": 1}.items():
        (at / split).mkdir(parents=True)
        whole = [
            task(f"{split}-{k}", [action(k + i, page(k + i, filler=k % (filler + 1))) for i in range(4)]) for k in range(tasks)
        ]
        (at / split / f"{split}_0.json").write_text(json.dumps(whole))


def scienceworld(folder):
    """Transitions as ``swirl record scienceworld`` writes them, of a house with one door; no simulator is needed."""
    rooms, rows = ("kitchen", "hallway"), []
    for number in range(24):
        split = "test" if number >= 20 else "val" if number >= 16 else "train"
        context = "Your task is to find a(n) plant. First, focus on the thing. Then, move it to the red box in the kitchen."
        for step in range(4):
            here, there = rooms[step % 2], rooms[(step + 1) % 2]
            state = f"This room is called the {here}. In it, you see: \n\tthe agent\n\ta substance called air\n"
            state += f"You also see:\n\tA door to the {there} (that is open)\nIn your inventory, you see:\n\tan orange {number}"
            sentence = f"go to {there}"
            row = Transition(state, f"You move to the {there}.", sentence, context, f"find-plant/{number}/gold", step)
            rows.append((row, split))
    write_transitions(folder, rows, lambda: {"simulator": "scienceworld"})


def tiny_qwen(data, out):
    """A random-weight Qwen2 with a chat template, its tokenizer trained on recorded transitions."""
    sizes = ["--hidden_size", "32", "--layers", "2", "--heads", "4", "--vocab_size", "400", "--max_positions", "2048"]
    more = ["--model_type", "qwen2", "--extra", "{num_key_value_heads: 2, vocab_size: 420}"]
    assert main(["init", "--data", str(data), "--out", str(out), *sizes, *more]) == 0
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokenizer.chat_template = turns
    tokenizer.save_pretrained(out)
