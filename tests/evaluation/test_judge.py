"""The judge's client against a local server that also misbehaves."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swirl_lightning.evaluation.judge import Judge, Question, Verdict


class Server(ThreadingHTTPServer):
    """Answers with ``script`` in turn, the last one for ever; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.headers, self.busy, self.most, self.lock = script, [], [], 0, 0, threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.seen)
            server.seen.append(body)
            server.headers.append(dict(self.headers))
            server.busy += 1
            server.most = max(server.most, server.busy)
        try:
            server.script[min(number, len(server.script) - 1)](self)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with server.lock:
                server.busy -= 1

    def log_message(self, *args):
        pass


def reply(status=200, body=b"", headers=(), pause=0.0):
    def send(handler):
        time.sleep(pause)
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def said(content, **options):
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    body = json.dumps({"choices": [{"message": {"content": content}}], "usage": usage}).encode()
    return reply(body=body, **options)


def drip(handler):
    """A slow stream: a byte at a time, never done in time."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


DOOR = (Question("did the door open?"),)
GOOD = said('{"score": 7, "reason": "the door opened"}')


@pytest.fixture
def ask(tmp_path):
    """A function that runs questions against a script and gives verdicts, server and judge."""
    servers = []

    def run(*script, questions=DOOR, **options):
        server = Server(script)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        settings = {"backoff": 0.01, "seconds": 0.4, "tries": 3, "cache": tmp_path / "judge.sqlite", **options}
        judge = Judge(f"http://127.0.0.1:{server.server_address[1]}/v1", "judge", **settings)
        return judge.ask(questions), server, judge

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_score_with_its_reason_tokens_and_cost(ask, monkeypatch):
    monkeypatch.setenv("SWIRL_JUDGE_KEY", "secret")
    question = Question("compare", (b"\x89PNG1", b"\xff\xd82"))
    verdicts, server, judge = ask(GOOD, questions=[question], dollars_in=2.0, dollars_out=10.0)
    assert verdicts == [Verdict(7.0, "the door opened")]
    (request,) = server.seen
    assert request["temperature"] == 0
    kinds = [part["image_url"]["url"].split(";")[0] for part in request["messages"][0]["content"][1:]]
    assert kinds == ["data:image/png", "data:image/jpeg"]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert judge.cost == pytest.approx((100 * 2 + 10 * 10) / 1e6)
    assert b"secret" not in judge.cache.read_bytes()


def test_without_a_key_none_is_sent(ask, monkeypatch):
    monkeypatch.delenv("SWIRL_JUDGE_KEY", raising=False)
    _, server, _ = ask(GOOD)
    assert "Authorization" not in server.headers[0]


def test_the_keys_variable_and_the_longest_wait_are_settings(ask, monkeypatch):
    monkeypatch.setenv("ANOTHER_KEY", "secret")
    began = time.monotonic()
    verdicts, server, _ = ask(
        reply(429, b"slow down", headers=[("Retry-After", "30")]), GOOD, key_variable="ANOTHER_KEY", max_wait=0.01
    )
    assert verdicts == [Verdict(7.0, "the door opened")]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "trouble",
    [
        reply(429, b"slow down", headers=[("Retry-After", "0.01")]),
        reply(429, b"slow down", headers=[("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT")]),
        reply(500, b"oops"),
        reply(200, b"{not json"),
        reply(200, b'{"choices": []}'),
        said("I would say seven"),
        said('{"score": "7"}'),
        said('{"score": 11}'),
        said('{"score": true}'),
        said("[7]"),
        reply(200, pause=1.0),
        drip,
    ],
    ids=lambda trouble: None,
)
def test_trouble_that_passes_is_tried_again(ask, trouble):
    verdicts, server, judge = ask(trouble, GOOD)
    assert verdicts == [Verdict(7.0, "the door opened")]
    assert len(server.seen) == 2
    assert judge.counts["retries"] == 1


def test_trouble_that_stays_is_a_verdict_without_score(ask):
    verdicts, server, judge = ask(reply(503, b"down"))
    assert verdicts[0].score is None
    assert verdicts[0].error == "HTTP 503: down"
    assert len(server.seen) == 3
    assert judge.counts["failed"] == 1


def test_a_wrong_request_is_not_repeated(ask):
    verdicts, server, _ = ask(reply(401, b"no such key"))
    assert verdicts[0].error == "ValueError: HTTP 401: no such key"
    assert len(server.seen) == 1


def test_nobody_there(tmp_path):
    judge = Judge("http://127.0.0.1:9/v1", "judge", tmp_path / "c.sqlite", tries=2, backoff=0.01)
    (verdict,) = judge.ask([Question("anyone?")])
    assert verdict.score is None
    assert "refused" in verdict.error


def test_answers_are_kept_and_only_failures_are_asked_again(ask):
    questions = [Question(f"question {i}") for i in range(3)]
    first, _, _ = ask(GOOD, GOOD, reply(400, b"bad"), questions=questions, concurrency=1)
    assert [verdict.score for verdict in first] == [7.0, 7.0, None]
    second, server, judge = ask(said('{"score": 3}'), questions=questions)
    assert [verdict.score for verdict in second] == [7.0, 7.0, 3.0]
    assert len(server.seen) == 1
    assert judge.counts["cached"] == 2


def test_equal_questions_are_asked_once_and_few_are_in_flight(ask):
    questions = [Question(f"q{i % 6}") for i in range(12)]
    slow = said('{"score": 5}', pause=0.05)
    verdicts, server, _ = ask(slow, questions=questions, concurrency=2, seconds=5.0)
    assert {verdict.score for verdict in verdicts} == {5.0}
    assert len(server.seen) == 6
    assert server.most <= 2


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match="base_url must begin with http"):
        Judge("localhost:8000", "judge", tmp_path / "c.sqlite")
    with pytest.raises(ValueError, match="at least 1"):
        Judge("http://localhost", "judge", tmp_path / "c.sqlite", tries=0)
