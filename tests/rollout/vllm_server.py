"""A server that speaks as vLLM does and draws with ``transformers`` and ``peft``: adapters are read from what was pushed."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

import torch
from peft import PeftModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.rollout import RolloutRequest, TransformersEngine
from swirl_lightning.types import SamplingParams


class Listed(TokenConstraint):
    """What ``allowed_token_ids`` says."""

    static = True

    def __init__(self, ids, vocab_size):
        self.vocab_size = vocab_size
        self.mask = torch.zeros(vocab_size, dtype=torch.bool)
        self.mask[ids] = True

    def allowed(self, generated):
        return self.mask


class Server:
    """The base model, the adapters that were loaded, and what was asked."""

    def __init__(self, base):
        self.base, self.peft, self.loaded, self.asked, self.lock = base, None, [], [], Lock()
        self.logprob_error, self.seen = 0.0, []

    def load_lora_adapter(self, body):
        self.seen.append(sorted(file.name for file in Path(body["lora_path"]).iterdir()))
        if self.peft is None:
            self.peft = PeftModel.from_pretrained(self.base, body["lora_path"], adapter_name=body["lora_name"])
        else:
            self.peft.load_adapter(body["lora_path"], adapter_name=body["lora_name"])
        self.loaded.append(body["lora_name"])
        return "Success: LoRA adapter added"

    def unload_lora_adapter(self, body):
        self.loaded.remove(body["lora_name"])
        self.peft.delete_adapter(body["lora_name"])
        return "Success: LoRA adapter removed"

    def completions(self, body):
        if body["model"] not in self.loaded:
            return None
        if body["temperature"] == 0 and body["n"] > 1:
            raise ValueError("n must be 1 when using greedy sampling")
        self.peft.set_adapter(body["model"])
        params = SamplingParams(body["max_tokens"], body["temperature"], body["top_k"], body["top_p"], body["min_p"])
        allowed = body.get("allowed_token_ids")
        drawn = TransformersEngine().generate(
            self.peft.get_base_model().eval(),
            RolloutRequest(
                prompts=[body["prompt"]],
                seeds=[body["seed"]],
                group_size=body["n"],
                sampling=params,
                stop_ids=body["stop_token_ids"],
                pad_id=0,
                constraint=None if allowed is None else Listed(allowed, self.base.config.vocab_size),
            ),
        )
        choices = []
        for k in reversed(range(body["n"])):  # in no particular order
            length = int(drawn.lengths[0, k])
            logprobs = (drawn.logprobs[0, k, :length] + self.logprob_error).tolist()
            choices.append(
                {
                    "index": k,
                    "token_ids": drawn.completion_ids(0, k),
                    "logprobs": {"token_logprobs": logprobs},
                    "finish_reason": "stop" if drawn.finished[0, k] else "length",
                }
            )
        return {"choices": choices}


@contextmanager
def serve(base):
    """Starts a server over a base model; yields it with its ``url``."""
    server = Server(base)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # http.server's name
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.asked.append((self.path, body))
                try:
                    answer = getattr(server, self.path.removeprefix("/v1/"))(body)
                    status = 200 if answer is not None else 404
                except ValueError as error:
                    status, answer = 400, {"error": {"message": str(error)}}
            data = (answer if isinstance(answer, str) else json.dumps(answer or {"error": "no such model"})).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=http.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
