"""A headless Chromium of one's own, driven by the DevTools protocol over a pipe.

There is no port, no driver program and no network: Chromium reads commands from one pipe and answers on another, looks up no
host, and ends when the pipes close. Playwright and Selenium were not taken: both wait for a page that hangs without giving a
handle on the browser to kill, and each needs a program of its own that must fit the browser.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from typing import Any

from swirl_lightning.environments.recording.simulators import SimulatorError, SimulatorProcess

START = 60.0  # seconds that a browser may take to start, however short a page's answers have to be
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--mute-audio",
    "--no-first-run",
    "--window-size=800,600",
)
_PIPES = 'exec "$@" --user-data-dir="$PWD/profile" 3<&0 4>&1 </dev/null >/dev/null'  # Chromium's descriptors for commands


def find_browser() -> str:
    """Path of a Chromium or Chrome.

    Raises:
        SimulatorError: if there is none.
    """
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise SimulatorError(
        f"no browser was found ({', '.join(PROGRAMS)}): install Chromium (Debian: apt-get install chromium) or put it on PATH"
    )


class Browser:
    """One tab of a headless Chromium.

    Args:
        timeout: Seconds that one answer may take. A page that takes longer is stopped with the whole browser.

    Raises:
        SimulatorError: if there is no browser, or it does not start.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._start()

    def _start(self) -> None:
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium refuses to run as root otherwise
        command = ["sh", "-c", _PIPES, "sh", find_browser(), *_FLAGS, *root]
        self._process = SimulatorProcess(command, "browser", max(START, self.timeout))
        self._numbers, self._rest = itertools.count(1), b""
        self._session: str | None = None
        self._events: set[str] = set()
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.call("Page.enable")
        except BaseException:
            self._process.close()
            raise
        self._process.timeout = self.timeout

    def restart(self) -> None:
        """Starts a new browser in the place of one that hangs or died."""
        self._process.close()
        self._start()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its result.

        Raises:
            SimulatorError: if no answer comes in time, or the browser died.
            RuntimeError: if the browser refuses the command.
        """
        number = next(self._numbers)
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        with self._process.limit(f"{method} {str(parameters)[:80]}"):
            self._process.stdin.write(json.dumps(command).encode() + b"\0")
            self._process.stdin.flush()
            while (message := self._read()).get("id") != number:
                self._events.add(message.get("method", ""))
        if "error" in message:
            raise RuntimeError(f"browser: {method}: {message['error'].get('message')}")
        result: dict[str, Any] = message["result"]
        return result

    def wait_for(self, event: str, method: str, **parameters: Any) -> None:
        """Sends a command and waits for the event that it brings about."""
        self._events.discard(event)
        self.call(method, **parameters)
        with self._process.limit(f"wait for {event}"):
            while event not in self._events:
                self._events.add(self._read().get("method", ""))

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page, as JSON holds it.

        Raises:
            RuntimeError: with the page's message, if the expression throws.
        """
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(f"browser: {details.get('exception', {}).get('description', details.get('text'))}")
        return answer["result"].get("value")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise EOFError("the browser closed its pipe")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Ends the browser."""
        self._process.close()
