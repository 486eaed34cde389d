"""``swirl score`` on files of predictions written by the test."""

import json

import pytest

from swirl_lightning.cli import main


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="said.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def scored(path, benchmark="text", *options):
    out = path.parent / "out" / "scores.json"
    status = main(["score", benchmark, str(path), "--out", str(out), *options])
    assert status == 0
    return json.loads(out.read_text())["results"]


def row(prediction, reference, **rest):
    return {"prediction": prediction, "reference": reference, **rest}


def test_copies_and_changed_transitions_have_rows_of_their_own(write, capsys):
    path = write(row("a b", "a b", state="a b"), row("a c", "a c", state="a b"), row("x", "a d", state="a b"))
    results = {(r["transitions"], r["row"]): r for r in scored(path)}
    exact = {key: r["measures"]["exact_match"] for key, r in results.items()}
    assert exact == {
        ("all", "prediction"): pytest.approx(2 / 3),
        ("all", "copy"): pytest.approx(1 / 3),
        ("changed", "prediction"): 0.5,
        ("changed", "copy"): 0.0,
    }
    assert results["changed", "copy"]["measures"]["copy_rate"] == 1.0
    assert [r["count"] for r in results.values()] == [3, 3, 2, 2]
    assert "| all | changed | copy | 2 | 0.0000 |" in capsys.readouterr().out


def test_splits_and_all_of_them(write):
    path = write(row("a", "a", split="id"), row("b", "a", split="ood"), row("a", "a", split="ood"))
    assert [(r["split"], r["count"], r["measures"]["exact_match"]) for r in scored(path)] == [
        ("id", 1, 1.0),
        ("ood", 2, 0.5),
        ("all", 3, pytest.approx(2 / 3)),
    ]


def test_without_states_there_is_no_copy(write):
    (only,) = scored(write(row("a", "b")))
    assert only["row"] == "prediction"
    assert "changed_accuracy" not in only["measures"]


def test_tools_and_web(write):
    answer = '{"error": "", "response": "ok"}'
    (tools,) = scored(write(row(answer, answer)), "tools")
    assert tools["measures"]["tool_bleu"] == pytest.approx(100)
    assert tools["measures"]["field_f1"] == tools["measures"]["json_valid"] == 1.0
    pytest.importorskip("lxml")
    pytest.importorskip("rapidfuzz")
    model, copy = scored(write(row("<p>b</p>", "<p>b</p>", state="<p>a</p>")), "web")
    assert (model["measures"]["changed_element_f1"], copy["measures"]["changed_element_f1"]) == (1.0, 0.0)
    assert model["transitions"] == "all, all changed"


def test_the_default_output_lies_beside_the_file(write, capsys):
    path = write(row("é \x00", "é \x00"))
    assert main(["score", "text", str(path)]) == 0
    assert json.loads(path.with_suffix(".scores.json").read_text())["benchmark"] == "text"
    assert "said.scores.json" in capsys.readouterr().out


GOOD = '{"prediction": "a", "reference": "b"}'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, '{"prediction": "a"'], "line 2: malformed JSON"),
        ([GOOD, ""], "line 2: malformed JSON"),
        ([GOOD, "[1]"], "line 2: must hold one JSON object, got list"),
        ([GOOD, '{"prediction": 3, "reference": "b"}'], "line 2: field 'prediction' must be text, got 3"),
        (
            [GOOD, '{"prediction": "a", "answer": "b"}'],
            "line 2: field 'reference' must be text, got missing; the line has",
        ),
        ([GOOD, '{"prediction": "a", "reference": "b", "state": "c"}'], "line 1: field 'state' is missing, but"),
        (['{"prediction": "a", "reference": "b", "split": "c"}', GOOD], "line 2: field 'split' is missing, but"),
        (["[" * 100_000], "line 1: "),
        ([b"\xff\xfe".decode("latin-1")], "line 1: malformed JSON"),
        ([], "is empty"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, capsys, lines, message):
    path = tmp_path / "said.jsonl"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
    assert main(["score", "text", str(path)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "said.jsonl" in said


def test_bertscore_without_a_model_says_what_to_do(write, capsys):
    path = write(row("a", "b"))
    assert main(["score", "text", str(path), "--bert_score", "roberta-large"]) == 1
    assert "hf download roberta-large" in capsys.readouterr().err
