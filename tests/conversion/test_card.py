"""Model cards of exported folders, and the hub: a stub of it on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
import yaml
from huggingface_hub import ModelCard

from swirl_lightning.conversion.card import licence_of, write_card
from swirl_lightning.conversion.push import hub_name, push
from swirl_lightning.types import Role

TOKEN = "hf_a-secret-of-the-test"


@pytest.fixture
def run(tmp_path):
    """A run's files that a card is made from, with a base that says its licence."""
    base = tmp_path / "base"
    base.mkdir()
    ModelCard("---\nlicense: mit\n---\n# A base").save(base / "README.md")
    folder = tmp_path / "lamps"
    folder.mkdir()
    model = {"world_model": {"base": str(base), "storage": "separate"}, "schedule": {"iterations": 2}, "warmup": "joint"}
    model |= {"fwm": {"group_size": 7}, "idm": {"group_size": 5}, "fwm_optimizer": {"init_args": {"lr": 0.25}}, "guard": None}
    data = {"class_path": "TransitionDataModule", "init_args": {"path": "lamps.jsonl", "stride": None}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": data}))
    rows = [
        {
            "label": label,
            "split": "test",
            "decoding": "greedy",
            "fwm": {"exact_match": value, "changed/x": 0.1},
            "idm": {"bleu": 3.0},
        }
        for label, value in (("warmup", 0.125), ("swirl-1-fwm", 0.625))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_card_says_data_recipe_measures_and_licence(run, tmp_path):
    card = ModelCard.load(write_card(tmp_path, Role.FWM, run))
    assert card.data.license == "mit"
    assert card.data.library_name == "transformers"
    assert card.data.base_model is None  # a folder of this machine is no model of the hub
    assert {"world-model", "fwm"} <= set(card.data.tags)
    assert "# FWM of lamps" in card.text
    assert "path: lamps.jsonl" in card.text
    assert "stride" not in card.text
    assert "group_size: 7" in card.text
    assert "group_size: 5" not in card.text
    assert "lr: 0.25" in card.text
    assert "| test | greedy | exact_match | 0.6250 |" in card.text
    assert "0.1250" not in card.text
    other = ModelCard.load(write_card(tmp_path, Role.IDM, run))
    assert "| test | greedy | bleu | 3.0000 |" in other.text


def test_a_card_without_a_run_or_a_licence(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["world_model"]["base"] = "owner/base"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "metrics.jsonl").unlink()
    card = ModelCard.load(write_card(tmp_path, Role.FWM, run))
    assert (card.data.base_model, card.data.license) == ("owner/base", None)
    assert "Its card names no licence" in card.text
    assert "None were taken" in card.text
    config["model"]["world_model"]["base"] = {"hidden_size": 96}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    new = ModelCard.load(write_card(tmp_path, Role.FWM, run))
    assert 'A new model, {"hidden_size": 96}' in new.text
    assert "Its card" not in new.text
    (tmp_path / "README.md").write_text("---\n{\n---\nnot a card")
    assert licence_of(str(tmp_path)) is None


@pytest.fixture
def hub(monkeypatch):
    """The hub's address, and what was sent to it: (method, path, token, body)."""
    sent = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.path, self.headers["Authorization"], body))
            if "preupload" in self.path:
                files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
                answer = {"files": files}
            elif "/commit/" in self.path:
                answer = {"success": True, "commitOid": "1", "commitUrl": f"{url}/owner/lamps-fwm/commit/1"}
            else:
                answer = {"url": f"{url}/owner/lamps-fwm", "errors": [], "warnings": []}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield sent
    server.shutdown()


def test_a_folder_is_pushed_as_one_commit(hub, run, tmp_path, capfd):
    write_card(tmp_path / "base", Role.FWM, run)
    push(tmp_path / "base", hub_name("hub:owner/lamps") + "-fwm")
    assert all(token == f"Bearer {TOKEN}" for _, token, _ in hub)
    (created,) = [json.loads(body) for path, _, body in hub if path == "/api/repos/create"]
    assert (created["name"], created["organization"]) == ("lamps-fwm", "owner")
    assert created.get("private") or created["visibility"] == "private"  # as the version says it
    ((path, _, commit),) = [one for one in hub if "/commit/" in one[0]]
    assert path.startswith("/api/models/owner/lamps-fwm/commit/main")
    parts = [json.loads(line) for line in commit.decode().splitlines()]
    assert "README.md" in [part["value"].get("path") for part in parts if part["key"] == "file"]
    said = capfd.readouterr()
    assert TOKEN not in said.out + said.err


def test_a_place_that_is_none_and_a_token_that_is_not_there(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for target in ("owner/name", "hub:name", "hub:a/b/c"):
        with pytest.raises(ValueError, match="written hub:owner/name"):
            hub_name(target)
    with pytest.raises(ValueError, match="environment variable HF_TOKEN"):
        hub_name("hub:owner/name")
