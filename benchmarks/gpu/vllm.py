"""Rollouts on a vLLM server on the same device: speed, and how far its probabilities are from the trainer's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import _model
import _shapes
import torch

from benchmarks.gpu.common import SkippedError
from swirl_lightning.rollout import RolloutEngine, RolloutRequest, TransformersEngine, VllmEngine
from swirl_lightning.types import Role, SamplingParams
from swirl_lightning.world_model import WorldModel, WorldModelConfig
from tests.ports import free_port

SECONDS = 180  # that a server may take to start


def measure(place: Path, tiny: bool) -> dict[str, Any]:
    """Tokens a second of both engines, and the mean difference of log-probabilities.

    Raises:
        SkippedError: if vLLM is not installed (``VLLM`` may name its program).
    """
    program = os.environ.get("VLLM") or shutil.which("vllm")
    if not tiny and program is None:
        raise SkippedError("vLLM is not installed (VLLM may name its program)")
    size = _shapes.SIZES["tiny" if tiny else "0.5b"]
    _model.write(place / "models", size)
    base = place / "models" / "fwm"
    pair = WorldModel(WorldModelConfig(base=str(base), storage="adapters")).to("cuda" if torch.cuda.is_available() else "cpu")
    with torch.no_grad():
        for parameter in pair.role_parameters(Role.FWM):
            parameter.add_(0.1 * torch.randn_like(parameter))
    prompts = [[_shapes.FIRST_WORD + (7 * i + j) % (size.vocab - 3) for j in range(16 if tiny else 512)] for i in range(4)]
    params = SamplingParams(max_new_tokens=4 if tiny else 128)
    request = RolloutRequest(prompts, list(range(4)), 4 if tiny else 16, params, stop_ids=[_shapes.EOS], pad_id=0)
    with _stand_in(base) if tiny else _server(str(program), base, place) as url:
        sides: dict[str, RolloutEngine] = {"ours": TransformersEngine(), "vLLM": VllmEngine(url)}
        return {name: _draw(engine, pair, request) for name, engine in sides.items()}


def _draw(engine: RolloutEngine, pair: WorldModel, request: RolloutRequest) -> dict[str, float]:
    with pair.use(Role.FWM) as model:
        engine.generate(model.eval(), request)
        started = time.perf_counter()
        drawn = engine.generate(model, request)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens": int(drawn.mask.sum()), "logprob": float(drawn.logprobs[drawn.mask].mean())}


@contextmanager
def _server(program: str, base: Path, place: Path) -> Iterator[str]:
    """VLLM over the base model."""
    port, environment = free_port(), os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    options = ["--enable-lora", "--max-loras", "2", "--max-lora-rank", "16", "--logprobs-mode", "processed_logprobs"]
    options += ["--tokenizer", str(place / "models" / "tokenizer"), "--gpu-memory-utilization", "0.4"]
    arguments = [program, "serve", str(base), "--host", "127.0.0.1", "--port", str(port), *options]
    with (place / "vllm.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{port}", process, place / "vllm.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(SECONDS):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5)
            return
        except (URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(1)
    raise RuntimeError(f"vLLM did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")


@contextmanager
def _stand_in(base: Path) -> Iterator[str]:
    """The tests' server, which speaks as vLLM does."""
    from swirl_lightning.world_model.loading import load_causal_lm
    from tests.rollout.vllm_server import serve

    with serve(load_causal_lm(str(base), dtype="float32")) as server:
        yield server.url


def table(results: dict[str, dict[str, float]]) -> str:
    """A line for every engine."""
    lines = ["| engine | tokens | seconds | tokens a second | mean log-probability |", "|---|---|---|---|---|"]
    for name, found in results.items():
        rate = found["tokens"] / found["seconds"]
        lines.append(f"| {name} | {found['tokens']} | {found['seconds']:.2f} | {rate:.0f} | {found['logprob']:.4f} |")
    return "\n".join(lines)
