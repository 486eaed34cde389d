"""A language model as judge, over the OpenAI-compatible protocol: scores of generated images, each answer kept on disk.

The judge is a service that can fail; what it is asked about is already on disk. So a failed answer is a verdict without score
and with its reason, never an exception, and asking again pays only for what has no answer yet.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import random
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

_MAX_BYTES = 1 << 20  # of an answer
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # HTTP statuses that a later try may not meet


@dataclass(frozen=True, slots=True)
class Question:
    """What a judge sees."""

    text: str  # what to look for, and that the answer is JSON with "score" and "reason"
    images: tuple[bytes, ...] = ()  # PNG or JPEG bytes, in order


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it verdict."""

    score: float | None  # None where there is no valid answer
    reason: str = ""
    error: str = ""  # why there is no score


class _TransientError(Exception):
    """A failure that may pass; holds the seconds that the server asks to wait."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass
class Judge:
    """Asks ``base_url``/chat/completions at temperature 0.

    Attributes:
        base_url: Address of the API, e.g. ``http://localhost:8000/v1``.
        model: Name of the judge.
        cache: SQLite file of answers; one answer a model and question.
        key_variable: Environment variable that holds the key; where it is unset no key is sent.
        scale: Lowest and highest valid score.
        concurrency: Questions in flight.
        tries: Tries of a question.
        seconds: That one try may take, slow streams included.
        backoff: Seconds before the second try; doubles with every further one, plus up to half at random.
        max_wait: Seconds waited before a try at most, whatever the server asks for.
        max_tokens: Most tokens of an answer.
        dollars_in: Price of a million tokens asked; counted in ``cost``.
        dollars_out: Price of a million tokens answered.
    """

    base_url: str
    model: str
    cache: Path
    key_variable: str = "SWIRL_JUDGE_KEY"
    scale: tuple[float, float] = (0.0, 10.0)
    concurrency: int = 8
    tries: int = 5
    seconds: float = 60.0
    backoff: float = 1.0
    max_wait: float = 60.0
    max_tokens: int = 512
    dollars_in: float = 0.0
    dollars_out: float = 0.0
    counts: Counter[str] = field(default_factory=Counter, init=False)  # asked, cached, retries, failed, tokens
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings and make the cache.

        Raises:
            ValueError: naming the setting.
        """
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"judge: base_url must begin with http:// or https://, got {self.base_url!r}")
        if min(self.concurrency, self.tries, self.max_tokens) < 1 or self.seconds <= 0:
            raise ValueError("judge: concurrency, tries and max_tokens must be at least 1, seconds positive")
        Path(self.cache).parent.mkdir(parents=True, exist_ok=True)
        self._query("CREATE TABLE IF NOT EXISTS answers (question TEXT PRIMARY KEY, score REAL NOT NULL, reason TEXT NOT NULL)")

    @property
    def cost(self) -> float:
        """Dollars spent by this object, at the prices that were given."""
        return (self.counts["tokens in"] * self.dollars_in + self.counts["tokens out"] * self.dollars_out) / 1e6

    def ask(self, questions: Sequence[Question], progress: Callable[[int], object] | None = None) -> list[Verdict]:
        """Verdicts in the order of the questions.

        Args:
            questions: what to judge; equal ones are asked once.
            progress: called with 1 for every finished question.
        """
        distinct = list(dict.fromkeys(questions))

        def one(question: Question) -> Verdict:
            verdict = self._verdict(question)
            if progress is not None:
                progress(1)
            return verdict

        with ThreadPoolExecutor(self.concurrency) as pool:
            verdicts = dict(zip(distinct, pool.map(one, distinct), strict=True))
        return [verdicts[question] for question in questions]

    def _verdict(self, question: Question) -> Verdict:
        body = json.dumps(self._request(question), sort_keys=True).encode()
        key = hashlib.blake2b(repr(self.scale).encode() + body, digest_size=16).hexdigest()
        if known := self._query("SELECT score, reason FROM answers WHERE question = ?", key):
            self._count("cached")
            return Verdict(*known[0])
        error = ""
        for attempt in range(self.tries):
            try:
                score, reason = self._parsed(self._post(body))
            except _TransientError as failure:
                error = str(failure)
                if attempt + 1 < self.tries:
                    self._count("retries")
                    wait = self.backoff * 2**attempt * (1 + random.random() / 2) if failure.wait is None else failure.wait
                    time.sleep(min(wait, self.max_wait))
            except (OSError, ValueError) as failure:
                error = f"{type(failure).__name__}: {failure}"
                break
            else:
                self._query("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", key, score, reason)
                return Verdict(score, reason)
        self._count("failed")
        return Verdict(None, error=error)

    def _request(self, question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": question.text}]
        for image in question.images:
            kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
            url = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }

    def _post(self, body: bytes) -> bytes:
        """The answer's body.

        Raises:
            _TransientError: for what may pass: time-outs, refused connections, 429 and 5xx.
            ValueError: for any other status.
        """
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.base_url.rstrip('/')}/chat/completions", body, headers)
        self._count("asked")
        until, parts, size = time.monotonic() + self.seconds, [], 0
        try:
            with urllib.request.urlopen(request, timeout=self.seconds) as answer:
                while part := answer.read1(65536):
                    parts.append(part)
                    size += len(part)
                    if size > _MAX_BYTES:
                        raise ValueError(f"the answer is longer than {_MAX_BYTES} bytes")
                    if time.monotonic() > until:
                        raise _TransientError(f"no whole answer within {self.seconds} seconds")
        except urllib.error.HTTPError as failure:
            text = failure.read(300).decode(errors="replace")
            if failure.code in _AGAIN:
                raise _TransientError(f"HTTP {failure.code}: {text}", _seconds(failure.headers.get("Retry-After"))) from failure
            raise ValueError(f"HTTP {failure.code}: {text}") from failure
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as failure:
            raise _TransientError(f"{type(failure).__name__}: {failure}") from failure
        return b"".join(parts)

    def _parsed(self, answer: bytes) -> tuple[float, str]:
        """Score and reason; anything but one JSON object with a valid score is asked for again."""
        try:
            envelope = json.loads(answer)
            usage = envelope.get("usage") or {}
            self._count("tokens in", int(usage.get("prompt_tokens", 0)))
            self._count("tokens out", int(usage.get("completion_tokens", 0)))
            text = envelope["choices"][0]["message"]["content"]
            verdict = json.loads(text.strip().removeprefix("```json").removeprefix("```").removesuffix("```"))
            score, reason = verdict["score"], str(verdict.get("reason", ""))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as failure:
            raise _TransientError(f"no valid answer ({type(failure).__name__}: {failure}): {answer[:200]!r}") from failure
        if isinstance(score, bool) or not isinstance(score, int | float) or not self.scale[0] <= score <= self.scale[1]:
            raise _TransientError(f"score {score!r} is no number from {self.scale[0]} to {self.scale[1]}")
        return float(score), reason

    def _count(self, name: str, by: int = 1) -> None:
        with self._lock:
            self.counts[name] += by

    def _query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            connection = sqlite3.connect(self.cache, timeout=60)
            try:
                with connection:
                    return connection.execute(statement, values).fetchall()
            finally:
                connection.close()


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds; None where it is absent or a date."""
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None
