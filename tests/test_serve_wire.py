"""The server over real sockets: what no test client sends, and what ends with the process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from makers_serve import House, ask, medium, serving
from typer.testing import CliRunner

from forensics.config import ServeConfig
from forensics.serve import server as server_module
from forensics.serve import store as store_module
from forensics.serve.store import Store

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")
DEEPFAKE = Path(sys.executable).with_name("deepfake")
POST = b"POST /api/jobs?name=a.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[House]:
    with serving(tmp_path, max_bytes=100_000, places=2) as it:
        yield it


def raw(it: House, *parts: bytes) -> bytes:
    """Send bytes as they are; one answer, or what came before the server closed."""
    with closing(socket.create_connection(("127.0.0.1", it.port), timeout=5)) as door:
        with suppress(BrokenPipeError, ConnectionResetError):  # answered before all was sent
            for part in parts:
                door.sendall(part)
        return answer_of(door)


def answer_of(door: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionResetError):
        while part := door.recv(65536):
            answer += part
            head, end, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            if end and length and len(body) >= int(length[1]):
                break
    return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def eventually(condition: Any, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def chunked(data: bytes, size: int = 4000) -> list[bytes]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]


def test_an_upload_in_chunks_without_a_length_is_taken(it: House) -> None:
    body = chunked(medium("real", 50_000))
    answer = raw(it, POST, b"Transfer-Encoding: chunked\r\n\r\n", *body)
    assert status(answer) == 201


def test_an_upload_in_chunks_is_cut_off_at_the_limit(it: House) -> None:
    body = chunked(medium("real", 5_000_000))
    answer = raw(it, POST, b"Transfer-Encoding: chunked\r\n\r\n", *body)
    assert status(answer) == 413
    assert it.files() == []


def test_a_declared_size_over_the_limit_is_refused_before_a_byte_is_sent(it: House) -> None:
    answer = raw(it, POST, b"Content-Length: 100001\r\n\r\n")
    assert status(answer) == 413
    assert status(raw(it, POST, b"Content-Length: 99999999999999999999\r\n\r\n")) == 413


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 10\r\nContent-Length: 20\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x10\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Host: evil.example\r\n",
        b"X: " + b"x" * 100_000 + b"\r\n",
        b"Broken header\r\n",
    ],
)
def test_headers_that_smuggle_are_refused(it: House, headers: bytes) -> None:
    answer = raw(it, POST, headers, b"\r\n", b"0\r\n\r\n")
    assert answer == b"" or 400 <= status(answer) < 502
    assert it.queue.changes(0).jobs == []


def test_an_address_in_the_request_line_or_a_forwarded_host_changes_nothing(it: House) -> None:
    answer = raw(it, b"GET http://evil.example/api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert status(answer) == 404
    forwarded = b"X-Forwarded-Host: 127.0.0.1\r\nForwarded: host=127.0.0.1\r\n\r\n"
    answer = raw(it, b"GET /api/jobs HTTP/1.1\r\nHost: evil.example\r\n", forwarded)
    assert status(answer) == 421
    assert status(raw(it, b"GET /api/jobs HTTP/1.0\r\n\r\n")) == 421  # no Host at all


def test_who_hangs_up_midway_leaves_neither_a_file_nor_a_lost_place(it: House) -> None:
    for _ in range(3):  # there are two places
        with closing(socket.create_connection(("127.0.0.1", it.port), timeout=5)) as door:
            door.sendall(POST + b"Content-Length: 90000\r\n\r\n" + medium("real", 40_000))
            eventually(lambda: len(it.files()) == 1)
            assert it.queue.changes(0).free_places == 1
        eventually(lambda: it.queue.changes(0).free_places == 2)
        assert it.files() == []
    assert ask(it.port, "/api/jobs", medium("real"))[0] == 201
    assert len(it.queue.changes(0).jobs) == 1


def test_who_sends_too_slowly_loses_the_place(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_GRACE_S", 0.3)
    answer = raw(it, POST, b"Content-Length: 90000\r\n\r\n", medium("real", 5000))
    assert status(answer) == 408
    eventually(lambda: it.queue.changes(0).free_places == 2)
    assert it.files() == []
    start = time.monotonic()
    with closing(socket.create_connection(("127.0.0.1", it.port), timeout=5)) as door:
        door.sendall(POST + b"Content-Length: 90000\r\n\r\n" + medium("real", 100))
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - start < 5:  # a byte at a time never waits long
                door.sendall(b"\0")
                time.sleep(0.02)
    assert time.monotonic() - start < 3
    eventually(lambda: it.queue.changes(0).free_places == 2)
    assert ask(it.port, "/api/jobs", medium("real"))[0] == 201


def test_a_slow_upload_keeps_nobody_from_reading(it: House) -> None:
    with closing(socket.create_connection(("127.0.0.1", it.port), timeout=5)) as door:
        door.sendall(POST + b"Content-Length: 90000\r\n\r\n" + medium("real", 5000))
        eventually(lambda: len(it.files()) == 1)
        (upload,) = it.files()
        assert stat.S_IMODE(upload.stat().st_mode) == 0o600
        assert stat.S_IMODE(it.store.folder.stat().st_mode) == 0o700
        assert ask(it.port, "/api/jobs")[1]["jobs"] == []
    eventually(lambda: it.files() == [])


def test_two_at_once_are_both_taken(it: House) -> None:
    first, second = (socket.create_connection(("127.0.0.1", it.port), timeout=5) for _ in range(2))
    with closing(first), closing(second):
        for door in (first, second):
            door.sendall(POST + b"Content-Length: 5000\r\n\r\n" + medium("real", 2000))
        assert status(raw(it, POST, b"Content-Length: 5000\r\n\r\n")) == 429  # no third place
        for door in (first, second):
            door.sendall(b"\0" * 3000)
            assert status(answer_of(door)) == 201
    jobs = it.queue.changes(0).jobs
    assert len(jobs) == 2
    assert {it.wait(job.id) for job in jobs} == {"done"}


def test_the_end_of_the_server_ends_jobs_and_uploads_under_way(tmp_path: Path) -> None:
    with serving(tmp_path) as it:
        job = ask(it.port, "/api/jobs", medium("hang"))[1]["id"]
        it.wait(job, "running")
        door = socket.create_connection(("127.0.0.1", it.port), timeout=5)
        door.sendall(POST + b"Content-Length: 90000\r\n\r\n" + medium("real", 5000))
        eventually(lambda: len(it.files()) == 2)
    assert it.wait(job) == "cancelled"
    assert list(tmp_path.iterdir()) == []
    door.close()


# --- The process ----------------------------------------------------------------------------


def start(tmp_path: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [DEEPFAKE, "serve", "--port", "0", "--device", "cpu", *options],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def test_the_command_examines_a_real_clip_and_leaves_nothing_behind(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    child, address = start(folder, "--detector", str(tiny_checkpoint))
    assert address.startswith("http://127.0.0.1:")
    (store,) = folder.iterdir()
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    clip = Path(__file__).parents[1] / "data" / "samples" / "astronaut.mp4"
    port = int(address.rstrip("/").rpartition(":")[2])
    assert ask(port, "/api/server")[1]["detector"]["name"] == "tiny"
    _, job = ask(port, "/api/jobs?name=a.mp4", clip.read_bytes())
    seen: set[str] = set()
    while job["state"] not in ("done", "failed"):
        seen.add(job["stage"])
        _, job = ask(port, f"/api/jobs/{job['id']}")
    assert "looking" in seen
    _, report = ask(port, f"/api/jobs/{job['id']}/report.json")
    assert report["people"][0]["num_frames"] == 32
    assert report["config"]["device"] == "cpu"
    _, broken = ask(port, "/api/jobs", clip.read_bytes()[:20_000])
    while broken["state"] not in ("done", "failed"):
        _, broken = ask(port, f"/api/jobs/{broken['id']}")
    assert (broken["state"], broken["label"]) == ("done", "undecodable")
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, "")
    assert err == "Ctrl-C ends the server and removes its files and reports.\n"
    assert list(folder.iterdir()) == []


def test_a_server_that_was_killed_is_swept_by_the_next_and_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from forensics.serve.store import Store\n"
        "store = Store(max_bytes=1, parent=Path(sys.argv[1]))\n"
        "(store.folder / 'upload').write_bytes(b'secret')\n"
        "print(store.folder, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        with Store(max_bytes=1, parent=tmp_path):
            assert (left / "upload").exists()  # its owner lives
        child.kill()
        child.wait()
    assert left.exists()
    (tmp_path / "deepfake-serve-link").symlink_to("/")  # others' traps in a shared folder
    (tmp_path / "deepfake-serve-file").touch()
    with Store(max_bytes=1, parent=tmp_path) as store:
        assert not left.exists()
        assert store.folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "deepfake-serve-file",
        "deepfake-serve-link",
    ]


def test_an_interpreter_that_exits_removes_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from forensics.serve.store import Store\n"
        "store = Store(max_bytes=1, parent=Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["serve", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "open to other machines: give a token"),
        (["--token", "short"], "16 to 256"),
        (["--port", "65536"], "port must be"),
        (["--host", "127.0.0.1.1.1", "--token", "x" * 20], "cannot listen on 127.0.0.1.1.1"),
    ],
)
def test_settings_that_cannot_work_are_one_line(arguments: list[str], message: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_port_in_use_is_one_line(it: House) -> None:
    code, out, err = invoke("--port", str(it.port))
    assert (code, out) == (2, "")
    assert err == (
        f"deepfake: cannot listen on 127.0.0.1 port {it.port}: Address already in use; "
        "choose another --host or --port\n"
    )


def test_a_detector_that_does_not_exist_is_said_before_anything_is_served() -> None:
    code, out, err = invoke("--port", "0", "--detector", "absent")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "absent: neither a file nor a shipped detector" in err


def test_the_token_is_taken_from_the_environment_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: list[ServeConfig] = []

    def serve(config: ServeConfig, **_: object) -> None:
        served.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(server_module, "run", serve)
    monkeypatch.setenv("DEEPFAKE_TOKEN", "a-token-of-some-length")
    assert invoke("--host", "0.0.0.0") == (0, "", "")
    assert served[0].token == "a-token-of-some-length"
    code, out, _ = invoke("--help")
    assert code == 0
    assert "a-token" not in out


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "from importlib import metadata\n"
        "sys.modules['uvicorn'] = None\n"
        "(script,) = metadata.entry_points(group='console_scripts', name='deepfake')\n"
        "script.load()(['serve'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == (
        "deepfake: uvicorn is not installed: pip install 'deepfake[serve]' brings it\n"
    )


def test_the_description_of_the_api_names_every_route(it: House) -> None:
    described = ask(it.port, "/api/openapi.json")[1]
    assert json.dumps(described)
    assert set(described["paths"]) == {
        "/api/server",
        "/api/jobs",
        "/api/jobs/{job_id}",
        "/api/jobs/{job_id}/report.json",
        "/api/jobs/{job_id}/report.html",
    }
