"""The server's API without a socket: what is answered, kept, refused and cancelled."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from makers_serve import DETECTOR, House, TestClient, house, medium
from starlette.websockets import WebSocketDisconnect

from forensics.config import ServeConfig, load_config
from forensics.errors import ConfigError
from forensics.findings import Report
from forensics.report import schema
from forensics.serve import queue as queue_module
from forensics.serve import store as store_module
from forensics.serve.queue import display_name
from forensics.serve.security import Access
from forensics.serve.store import FORMATS
from forensics.structures import ABSTENTION_LABELS, JUDGED_LABELS

OURS = "http://127.0.0.1:8000"
BINARY = {"content-type": "application/octet-stream"}
TOKEN = "correct-horse-battery"


def client_of(it: House, **options: Any) -> TestClient:
    return TestClient(it.app, base_url=OURS, **options)


@pytest.fixture
def it(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as it:
        yield it


@pytest.fixture
def client(it: House) -> TestClient:
    return client_of(it)


def send(client: TestClient, body: bytes, name: str = "clip.mp4") -> Any:
    return client.post("/api/jobs", params={"name": name}, content=body, headers=BINARY)


def test_a_file_ends_in_a_report_and_the_upload_is_gone(it: House, client: TestClient) -> None:
    answer = send(client, medium("fake", 5000), "holiday.mov")
    assert answer.status_code == 201
    job = answer.json()
    assert (job["name"], job["size_bytes"]) == ("holiday.mov", 5000)
    assert re.fullmatch("[0-9a-f]{32}", job["id"])
    assert it.wait(job["id"]) == "done"
    assert {path.suffix for path in it.files()} == set(FORMATS)
    job = client.get(f"/api/jobs/{job['id']}").json()
    assert (job["label"], job["probability"]) == ("likely_fake", 0.86)
    assert (job["stage"], job["done"], job["total"]) == ("scoring", 64, 64)
    assert job["submitted"] <= job["started"] <= job["finished"]
    report = client.get(f"/api/jobs/{job['id']}/report.json")
    assert report.headers["content-type"] == "application/json"
    jsonschema.Draft202012Validator(schema()).validate(report.json())
    assert report.json()["media"]["path"] == "holiday.mov"
    page = client.get(f"/api/jobs/{job['id']}/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src")
    assert page.headers["content-disposition"] == 'inline; filename="holiday.mov.html"'
    assert "holiday.mov" in page.text
    assert it.store.folder.name not in page.text
    assert not it.scanner.seen[0].exists()
    assert it.scanner.seen[0].parent == it.store.folder


def test_a_broken_file_ends_in_an_abstention_under_its_own_name(
    it: House, client: TestClient
) -> None:
    job = send(client, medium("broken")).json()
    assert it.wait(job["id"]) == "done"
    report = client.get(f"/api/jobs/{job['id']}/report.json").json()
    assert report["verdict"]["label"] == "undecodable"
    assert report["verdict"]["reasons"] == ["clip.mp4: no moov box"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("crash", "unexpected RuntimeError: boom in clip.mp4; please report this"),
        ("gone", "clip.mp4: cannot be read"),
    ],
)
def test_a_scan_that_fails_is_said_and_the_next_file_is_examined(
    it: House, client: TestClient, word: str, message: str
) -> None:
    job = send(client, medium(word)).json()
    assert it.wait(job["id"]) == "failed"
    assert client.get(f"/api/jobs/{job['id']}").json()["message"] == message
    assert client.get(f"/api/jobs/{job['id']}/report.json").status_code == 409
    good = send(client, medium("real")).json()["id"]
    assert it.wait(good) == "done"
    assert {path.stem for path in it.files()} == {good}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the file is empty"),
        (b"hello", "a text file, not a medium"),
        (b"\0" * 9000, "the file holds only zero bytes"),
        (b"#EXTM3U\nhttp://127.0.0.1/x\n", "an HLS playlist names other files"),
        (b"PK\x03\x04" + b"\0" * 5000, "not a media file"),
        (b"RIFF\0\0\0\0WAVE" + b"\0" * 5000, "the file holds sound and no video"),
    ],
)
def test_what_is_no_medium_is_refused_by_its_first_bytes(
    it: House, client: TestClient, body: bytes, detail: str
) -> None:
    answer = send(client, body)
    assert answer.status_code == 415
    assert answer.json()["detail"].startswith(detail)
    assert (it.files(), it.scanner.seen) == ([], [])


def test_one_byte_over_the_limit_is_refused_and_one_less_is_not(tmp_path: Path) -> None:
    with house(tmp_path, max_bytes=10_000) as it:
        client = client_of(it)
        taken = send(client, medium("real", 10_000))
        assert taken.status_code == 201
        assert it.wait(taken.json()["id"]) == "done"
        answer = send(client, medium("real", 10_001))
        assert answer.status_code == 413
        assert "--max-upload-mb" in answer.json()["detail"]

        def chunks() -> Iterator[bytes]:  # without a Content-Length
            yield medium("real", 9000)
            yield b"\0" * 1001

        answer = client.post("/api/jobs", content=chunks(), headers=BINARY)
        assert (answer.status_code, len(it.scanner.seen)) == (413, 1)


def test_a_full_disk_is_said_and_leaves_nothing(
    it: House, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "write", full)
        job = send(client, medium("real")).json()["id"]
        assert it.wait(job) == "failed"
    message = "the report cannot be written: No space left on device"
    assert client.get(f"/api/jobs/{job}").json()["message"] == message

    async def full_too(*_: object) -> None:
        full()

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "to_thread", full_too)
        answer = send(client, medium("real"))
    assert answer.status_code == 507
    assert answer.json()["detail"] == "the file cannot be stored: No space left on device"
    assert it.files() == []
    assert it.wait(send(client, medium("real")).json()["id"]) == "done"


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "text/plain"])
def test_what_a_foreign_form_can_send_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/api/jobs", content=medium("real"), headers={"content-type": kind})
    assert answer.status_code == 415
    assert "send the file itself" in answer.json()["detail"]


def test_the_queue_is_bounded_and_the_place_of_a_refused_file_is_free_again(
    tmp_path: Path,
) -> None:
    with house(tmp_path, places=2) as it:
        client = client_of(it)
        running = send(client, medium("gate")).json()["id"]
        it.wait(running, "running")
        for _ in range(5):  # each takes a place and gives it back
            assert send(client, b"no medium").status_code == 415
        waiting = [send(client, medium("real")).json()["id"] for _ in range(2)]
        answer = send(client, medium("real"))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
        assert "2 files are waiting" in answer.json()["detail"]
        it.scanner.gate.set()
        assert [it.wait(job) for job in (running, *waiting)] == ["done"] * 3
        assert send(client, medium("real")).status_code == 201


def test_a_running_job_is_cancelled_and_cancelling_twice_changes_nothing(
    it: House, client: TestClient
) -> None:
    job = send(client, medium("hang")).json()["id"]
    it.wait(job, "running")
    assert client.delete(f"/api/jobs/{job}").json()["state"] in ("cancelling", "cancelled")
    assert it.wait(job) == "cancelled"
    again = client.delete(f"/api/jobs/{job}")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert client.get(f"/api/jobs/{job}/report.json").status_code == 409
    assert it.files() == []


def test_a_job_that_is_cancelled_while_its_report_is_written_leaves_none(
    it: House, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, original = threading.Event(), store_module.write

    def slow(path: Path, report: Report) -> None:
        original(path, report)
        writing.set()
        assert it.scanner.gate.wait(10)

    monkeypatch.setattr(store_module, "write", slow)
    job = send(client, medium("real")).json()["id"]
    assert writing.wait(10)
    assert client.delete(f"/api/jobs/{job}").json()["state"] == "cancelling"
    it.scanner.gate.set()
    assert it.wait(job) == "cancelled"
    assert it.files() == []
    status = client.get(f"/api/jobs/{job}").json()
    assert (status["label"], status["probability"]) == (None, None)


def test_a_waiting_job_is_cancelled_without_being_looked_at(it: House, client: TestClient) -> None:
    running = send(client, medium("gate")).json()["id"]
    it.wait(running, "running")
    waiting = send(client, medium("real")).json()["id"]
    assert client.delete(f"/api/jobs/{waiting}").json()["state"] == "cancelled"
    it.scanner.gate.set()
    assert it.wait(running) == "done"
    assert len(it.scanner.seen) == 1


def test_a_job_that_ended_keeps_its_report_when_it_is_cancelled(
    it: House, client: TestClient
) -> None:
    job = send(client, medium("real")).json()["id"]
    it.wait(job)
    assert client.delete(f"/api/jobs/{job}").json()["state"] == "done"
    assert client.get(f"/api/jobs/{job}/report.json").status_code == 200


@pytest.mark.parametrize("job", ["0" * 32, "x", "..%2f..%2fetc%2fpasswd", "%00", "lock"])
def test_an_unknown_job_is_404(client: TestClient, job: str) -> None:
    for path in (f"/api/jobs/{job}", f"/api/jobs/{job}/report.json"):
        assert client.get(path).status_code == 404
    assert client.delete(f"/api/jobs/{job}").status_code == 404


def test_the_list_is_newest_first_and_tells_what_changed(it: House, client: TestClient) -> None:
    jobs = [send(client, medium("real"), f"{n}.mp4").json()["id"] for n in range(3)]
    for job in jobs:
        it.wait(job)
    listed = client.get("/api/jobs").json()
    assert [job["id"] for job in listed["jobs"]] == jobs[::-1]
    since = {"since": listed["revision"]}
    assert client.get("/api/jobs", params=since).json()["jobs"] == []
    fresh = send(client, medium("real")).json()["id"]
    it.wait(fresh)
    assert [job["id"] for job in client.get("/api/jobs", params=since).json()["jobs"]] == [fresh]


def test_many_jobs_leave_a_bounded_history(
    it: House, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "HISTORY", 4)
    for n in range(20):  # alternately with a report and without
        it.wait(send(client, medium("real" if n % 2 else "gone")).json()["id"])
    jobs = client.get("/api/jobs").json()["jobs"]
    assert len(jobs) == 4
    assert {path.stem for path in it.files()} == {job["id"] for job in jobs if job["label"]}


def test_the_server_says_what_it_is(client: TestClient) -> None:
    facts = client.get("/api/server").json()
    assert facts["detector"] == {"name": "tiny", "version": "0", "sha256": DETECTOR.sha256}
    assert facts["max_upload_bytes"] == 2**20
    assert set(facts["labels"]) == set(JUDGED_LABELS + ABSTENTION_LABELS)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\clip.mp4", "clip.mp4"),
        ("a/b/", "unnamed"),
        ("   ", "unnamed"),
        ("Ünïcödé 视频 🎬.mp4", "Ünïcödé 视频 🎬.mp4"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
        (
            "a\r\nSet-Cookie: x=1\0\x1b[2J\u202egpj.mp4",
            "a Set-Cookie: x=1\\x00\\x1b[2J\\u202egpj.mp4",
        ),
        ("x" * 500 + ".mp4", "x" * 80 + "…" + "x" * 35 + ".mp4"),
    ],
)
def test_names_are_shown_and_never_used(
    it: House, client: TestClient, name: str, shown: str
) -> None:
    assert display_name(name) == shown
    job = send(client, medium("real"), name).json()
    assert job["name"] == shown
    it.wait(job["id"])
    report = client.get(f"/api/jobs/{job['id']}/report.json")
    assert report.json()["media"]["path"] == shown
    assert "set-cookie" not in report.headers
    assert all(re.fullmatch(r"[0-9a-f]{32}(\.\w+)?", path.name) for path in it.files())


def test_every_answer_carries_strict_headers(it: House, client: TestClient) -> None:
    job = send(client, medium("real")).json()["id"]
    it.wait(job)
    for path in ("/", "/page.js", "/api/jobs", f"/api/jobs/{job}/report.json", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
    refused = client.get("/", headers={"host": "evil.example"})
    assert "default-src 'none'" in refused.headers["content-security-policy"]


def test_the_page_has_no_inline_script_or_style_and_names_no_other_server(
    client: TestClient,
) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", page.text)
    named = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert {"/style.css", "/page.js"} <= set(named)
    texts = {path: client.get(path) for path in named}
    assert all(answer.status_code == 200 for answer in texts.values())
    script = texts["/page.js"].text
    for path in re.findall(r'from "(/[^"]+)"', script):
        texts[path] = client.get(path)
        assert texts[path].headers["content-type"] == "text/javascript; charset=utf-8"
    for answer in (page, *texts.values()):
        assert set(re.findall(r"https?://[\w./]*", answer.text)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    "path", ["/static/page.js", "/..%2fapp.py", "//etc/passwd", "/docs", "/redoc", "/openapi.json"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


# --- Who may call ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example#127.0.0.1",
        "0.0.0.0",
        "192.168.1.5:8000",
        "127.0.0.2",
        "localhost.",
        " 127.0.0.1",
        "127.0.0.1:8000:8000",
        "127.0.0.1:evil",
        "",
    ],
)
def test_a_host_that_is_not_ours_is_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/page.js", "/api/jobs"):
        assert client.get(path, headers={"host": host}).status_code == 421
    answer = client.post("/api/jobs", content=medium("real"), headers={**BINARY, "host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "LOCALHOST", "[::1]:8000"])
def test_this_machine_by_its_names_and_any_forwarded_port_is_ours(
    client: TestClient, host: str
) -> None:
    assert client.get("/api/jobs", headers={"host": host}).status_code == 200


def test_two_hosts_are_one_too_many(client: TestClient) -> None:
    hosts = [("host", "127.0.0.1"), ("host", "evil.example")]
    assert client.get("/api/jobs", headers=hosts).status_code == 400
    origins = [("origin", OURS), ("origin", "http://evil.example")]
    assert client.get("/api/jobs", headers=origins).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},  # another program of this machine
        {"origin": "https://127.0.0.1:8000"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_others_neither_submit_nor_read_nor_cancel(
    it: House, client: TestClient, headers: dict[str, str]
) -> None:
    job = send(client, medium("hang")).json()["id"]
    it.wait(job, "running")
    posted = client.post("/api/jobs", content=medium("real"), headers={**BINARY, **headers})
    assert posted.status_code == 403
    assert client.get("/api/jobs", headers=headers).status_code == 403
    assert client.get("/page.js", headers=headers).status_code == 403
    assert client.delete(f"/api/jobs/{job}", headers=headers).status_code == 403
    assert client.options("/api/jobs", headers=headers).status_code == 403
    assert it.queue.status(job).state == "running"
    assert len(client.get("/api/jobs").json()["jobs"]) == 1


def test_our_own_page_may_and_a_link_from_elsewhere_may_lead_to_it(client: TestClient) -> None:
    own = {"origin": OURS, "sec-fetch-site": "same-origin"}
    assert client.get("/api/jobs", headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200


def test_a_websocket_is_closed(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/api/jobs"):
        pass
    assert closed.value.code == 1008


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


def test_a_token_is_asked_for_everywhere(tmp_path: Path) -> None:
    with house(tmp_path, token=TOKEN) as it:
        client = client_of(it)
        for path in ("/", "/page.js", "/api/jobs", "/api/openapi.json"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic ")
            assert TOKEN not in answer.text
        assert send(client, medium("real")).status_code == 401
        for wrong in (
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Bearer",
            "Bearer ",
            basic(""),
            basic("wrong"),
            "Basic !!!",
            "Basic /////w==",
            f"Digest {TOKEN}",
            TOKEN,
        ):
            assert client.get("/", headers={"authorization": wrong}).status_code == 401, wrong
        for right in (f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)):
            assert client.get("/", headers={"authorization": right}).status_code == 200, right
        # The token does not open the door to other hosts and pages.
        stolen = {"authorization": basic(TOKEN), "origin": "http://evil.example"}
        assert client.get("/api/jobs", headers=stolen).status_code == 403


def test_open_to_the_network_answers_to_addresses_and_not_to_names() -> None:
    access = Access(host="0.0.0.0", token=TOKEN)
    assert all(access.knows(host) for host in ("192.168.1.5:8000", "[fe80::1]", "localhost"))
    assert not any(access.knows(host) for host in ("evil.example", "10.0.0.1.evil.example"))
    named = Access(host="lab.example", token=TOKEN)
    assert named.knows("lab.example:8000")
    assert TOKEN not in repr(named)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"port": 70000}, "port must be"),
        ({"queue": 0}, "queue must be"),
        ({"max_upload_mb": 0}, "max_upload_mb must be"),
        ({"host": "0.0.0.0"}, "give a token"),
        ({"host": "example.org"}, "give a token"),
        ({"host": ""}, "give a token"),
        ({"token": "short"}, "16 to 256"),
        ({"token": "blank blank blank blank"}, "16 to 256"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load_config(ServeConfig, settings, "command line")


def test_settings_that_do_are_taken() -> None:
    assert load_config(ServeConfig, {"host": "::1", "port": 0}, "here").token is None
    config = load_config(ServeConfig, {"host": "0.0.0.0", "token": TOKEN}, "here")
    assert TOKEN not in repr(config)
