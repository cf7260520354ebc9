"""A server on a free port whose scanner answers by what the file says. No torch."""

from __future__ import annotations

import dataclasses
import http.client
import json
import math
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from makers_report import abstained, judged, person

from forensics.errors import ForensicsError
from forensics.findings import DetectorFacts, Report
from forensics.serve.app import Rooms, create_app
from forensics.serve.queue import JobQueue
from forensics.serve.security import Access
from forensics.serve.server import http_server
from forensics.serve.store import Store
from forensics.video import Cancellation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette wants httpx2, which needs Python 3.11
    from starlette.testclient import TestClient as TestClient

PNG = b"\x89PNG\r\n\x1a\n"
DETECTOR = DetectorFacts(name="tiny", version="0", sha256="d" * 64)


def medium(word: str, size: int = 64) -> bytes:
    """Bytes that begin as a picture does; `word` says what the scanner is to do with them."""
    return (PNG + word.encode() + b"\n").ljust(size, b"\0")


class FakeScanner:
    """`fake`, `real`, `uncertain`, `broken`; `crash`, `gone`; `hang` until cancelled, `gate` until
    the test opens it, `slow` for a second with progress."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.seen: list[Path] = []

    def scan(
        self,
        path: Path,
        *,
        on_progress: Callable[[str, int, int], None],
        cancellation: Cancellation,
        keep_evidence: bool,
    ) -> Report:
        assert keep_evidence
        self.seen.append(path)
        word = path.read_bytes()[len(PNG) :].partition(b"\n")[0].decode()
        on_progress("looking", 0, 32)
        if word == "crash":
            raise RuntimeError(f"boom in {path}")
        if word == "gone":
            raise ForensicsError(f"{path}: cannot be read")
        if word == "broken":
            report = abstained("undecodable", str(path))
            verdict = dataclasses.replace(report.verdict, reasons=(f"{path}: no moov box",))
            return dataclasses.replace(report, verdict=verdict)
        while word == "hang" or (word == "gate" and not self.gate.is_set()):
            cancellation.check()
            time.sleep(0.01)
        for done in range(1, 33):
            cancellation.check()
            on_progress("looking", done, 32)
            time.sleep(0.03 if word == "slow" else 0)
        on_progress("scoring", 64, 64)
        return _judged(word, path)


def _judged(word: str, path: Path) -> Report:
    level = {"real": 0.08, "uncertain": 0.45}.get(word, 0.86)
    label: Any = {"real": "likely_real", "uncertain": "uncertain"}.get(word, "likely_fake")
    waves = [
        [min(0.99, max(0.01, level + 0.1 * math.sin(t / 2 + n) - 0.3 * n)) for t in range(20)]
        for n in range(2)
    ]
    people = (
        dataclasses.replace(person(waves[0]), label=label),
        dataclasses.replace(person(waves[1], track_id=1), label="uncertain", sufficient=False),
    )
    report = judged(str(path), detector=DETECTOR)
    verdict = dataclasses.replace(report.verdict, label=label, probability=level, people=people)
    return dataclasses.replace(report, verdict=verdict)


@dataclass
class House:
    """A server's rooms, and its address once it serves."""

    scanner: FakeScanner
    store: Store
    queue: JobQueue
    app: Any
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, job_id: str, *states: str, seconds: float = 10) -> str:
        """Wait until the job is in one of `states` (default: ended)."""
        wanted = states or ("done", "failed", "cancelled")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.queue.status(job_id)
            if status is None or status.state in wanted:
                return "forgotten" if status is None else status.state
            time.sleep(0.005)
        raise AssertionError(f"still {self.queue.status(job_id)}")

    def files(self) -> list[Path]:
        """What lies in the private folder beside the lock."""
        return sorted(path for path in self.store.folder.iterdir() if path.name != "lock")


@contextmanager
def house(
    parent: Path,
    *,
    max_bytes: int = 2**20,
    places: int = 4,
    host: str = "127.0.0.1",
    token: str | None = None,
    scanner: Any = None,
) -> Iterator[House]:
    """The application without a socket."""
    with ExitStack() as ends:
        scanner = scanner or FakeScanner()
        store = ends.enter_context(Store(max_bytes=max_bytes, parent=parent))
        queue = ends.enter_context(closing(JobQueue(scanner, store, places=places)))
        rooms = Rooms(queue=queue, store=store, detector=DETECTOR)
        yield House(scanner, store, queue, create_app(rooms, Access(host=host, token=token)))


@contextmanager
def serving(parent: Path, **options: Any) -> Iterator[House]:
    """The application on a free port, served as `deepfake serve` does."""
    with house(parent, **options) as it, closing(socket.create_server(("127.0.0.1", 0))) as door:
        it.port = door.getsockname()[1]
        server = http_server(it.app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        _wait_for(it.port)
        try:
            yield it
        finally:
            server.should_exit = True
            thread.join(10)


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON of a GET, or of a POST where there is a body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Content-Type": "application/octet-stream"} if body is not None else {}
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.load(answer)


def _wait_for(port: int) -> None:
    for _ in range(500):
        try:
            ask(port, "/api/server")
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the server does not answer")
