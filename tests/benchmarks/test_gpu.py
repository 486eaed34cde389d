"""`make gpu` in its tiny form: every part runs, is kept, and stands on the page."""

import json

import pytest

from benchmarks.gpu import __main__ as gpu


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    assert gpu.main(["--tiny", "--out", str(folder)]) == 0
    return folder


def result(out, part):
    return json.loads((out / f"{part}.json").read_text())


@pytest.mark.slow
def test_every_part_has_a_result_or_says_why_not(out):
    for part in gpu.PARTS:
        assert {"result", "skipped"} & result(out, part).keys()
    assert all("result" in result(out, part) for part in ("sweep", "steps", "strategies", "memory", "vllm"))


@pytest.mark.slow
def test_runs_go_on_from_their_checkpoints_and_strategies_agree(out):
    found = result(out, "strategies")["result"]
    assert max(found["ddp"]["resumed"], found["fsdp"]["resumed"], found["fsdp"]["to ddp"]) < 1e-5


@pytest.mark.slow
def test_memory_is_what_the_documentation_counts(out):
    found = result(out, "memory")["result"]
    for storage in ("separate", "shared"):
        assert found[storage]["held"] == pytest.approx(found[storage]["counted"], rel=0.1)


@pytest.mark.slow
def test_both_engines_draw_from_one_model(out):
    found = result(out, "vllm")["result"]
    assert found["vLLM"]["logprob"] == pytest.approx(found["ours"]["logprob"], abs=1e-4)


@pytest.mark.slow
def test_the_page_names_the_device_and_every_part(out):
    page = (out / "gpu.md").read_text()
    assert page.startswith(f"# On {gpu.device_name()}")
    assert page.count("\n## ") == len(gpu.PARTS)
    assert "| `fsdp` | 1 |" in page
    assert "Failed" not in page


@pytest.mark.slow
def test_what_has_a_result_is_kept_and_a_failure_is_written_down(out, monkeypatch):
    monkeypatch.setattr(gpu, "run_part", lambda *_, **__: pytest.fail("run again"))
    kept = ["--tiny", "--out", str(out), "--only", "sweep", "memory"]
    assert gpu.main(kept) == 0
    gpu.run_apart("no such part", out, minutes=0.001)
    assert "stopped after" in result(out, "no such part")["failed"]


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--tiny" in capsys.readouterr().err
