"""The routes: submit, status, cancel, report; and the page, which is one of their callers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from forensics.errors import MediaError
from forensics.findings import DetectorFacts
from forensics.report.words import WORDS
from forensics.serve.queue import JobList, JobQueue, JobStatus, QueueFull, display_name
from forensics.serve.security import REPORT_CSP, Access, Guard
from forensics.serve.store import Store, UploadTooLarge, UploadTooSlow, too_large
from forensics.structures import Label

# The page, by address: a closed list, so no name from outside ever becomes a path.
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("dom", "page", "report", "timeline", "uploads", "words")
    },
}
# What forms of foreign pages can send without asking; a file is sent as it is.
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded", "text/plain")
# What is still to come of a body that is too long or too slow is not waited for. Elsewhere it is:
# a browser reads the answer only when it has sent everything.
_CLOSE = {"Connection": "close"}
_MEDIUM = {
    "requestBody": {
        "required": True,
        "description": "The file itself, not a form.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "No such job."}}
_NO_REPORT: dict[int | str, dict[str, Any]] = {
    **_UNKNOWN,
    409: {"description": "The job has no report: it has not ended, failed or was cancelled."},
}


class Detector(BaseModel):
    """The detector that judges: its card's name and version, its file's sha256."""

    name: str
    version: str
    sha256: str


class VerdictWords(BaseModel):
    """A label in words, as reports say it."""

    headline: str
    means: str
    means_not: str


class ServerFacts(BaseModel):
    """What this server is and accepts, and what its labels mean."""

    version: str
    detector: Detector
    max_upload_bytes: int
    labels: dict[Label, VerdictWords]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What the routes work with."""

    queue: JobQueue
    store: Store
    detector: DetectorFacts


def create_app(rooms: Rooms, access: Access) -> ASGIApp:
    """The whole application behind its guard."""
    app = FastAPI(
        title="deepfake",
        version=metadata.version("deepfake"),
        summary="Deepfake video forensics on this machine: submit a file, get a report.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's pages load scripts from the network
        redoc_url=None,
    )
    app.include_router(_jobs(rooms), prefix="/api")
    for address, (file, media_type) in _PAGE.items():
        body = (resources.files("forensics.serve") / "static" / file).read_bytes()
        app.add_api_route(
            address, _page(body, media_type), methods=["GET"], include_in_schema=False
        )
    return Guard(app, access)


def _page(body: bytes, media_type: str) -> Callable[[], Response]:
    def page() -> Response:
        return Response(body, media_type=media_type)

    return page


def _jobs(rooms: Rooms) -> APIRouter:
    api, queue, store = APIRouter(), rooms.queue, rooms.store

    @api.get("/server")
    def server() -> ServerFacts:
        """Version, detector, limits, and the meaning of labels."""
        facts = rooms.detector
        return ServerFacts(
            version=metadata.version("deepfake"),
            detector=Detector(name=facts.name, version=facts.version, sha256=facts.sha256),
            max_upload_bytes=store.max_bytes,
            labels={label: VerdictWords(**asdict(words)) for label, words in WORDS.items()},
        )

    @api.post(
        "/jobs",
        status_code=201,
        openapi_extra=_MEDIUM,
        responses={
            400: {"description": "The upload broke off."},
            408: {"description": "The upload was too slow."},
            413: {"description": "The file is larger than this server takes."},
            415: {"description": "A form, or a file that is neither video nor picture."},
            429: {"description": "As many files wait as may wait."},
            507: {"description": "The disk is full."},
        },
    )
    async def submit(
        request: Request, name: Annotated[str, Query(max_length=1024)] = "unnamed"
    ) -> JobStatus:
        """Send a file as the request's body; `name` is what its report calls it."""
        _require_file(request, store.max_bytes)
        try:
            queue.reserve()
        except QueueFull as error:
            raise HTTPException(429, str(error), headers={"Retry-After": "10"}) from error
        try:
            upload = await store.receive(request.stream())
        except BaseException as error:
            queue.release()
            if (refusal := _refusal(error)) is None:
                raise
            raise refusal from error
        return queue.submit(upload, display_name(name))

    @api.get("/jobs")
    def jobs(since: Annotated[int, Query(ge=0)] = 0) -> JobList:
        """All jobs since the server's start, newest first; or those changed after a revision."""
        return queue.changes(since)

    @api.get("/jobs/{job_id}", responses=_UNKNOWN)
    def job(job_id: str) -> JobStatus:
        """A job's state and progress."""
        return _known(queue.status(job_id))

    @api.delete("/jobs/{job_id}", responses=_UNKNOWN)
    def cancel(job_id: str) -> JobStatus:
        """Cancel a job that waits or runs. One that has ended stays what it is."""
        return _known(queue.cancel(job_id))

    @api.get("/jobs/{job_id}/report.json", responses=_NO_REPORT)
    def report_json(job_id: str) -> FileResponse:
        """The report, as `deepfake scan --json` writes it."""
        return _report(job_id, ".json", "application/json")

    @api.get("/jobs/{job_id}/report.html", responses=_NO_REPORT, response_class=HTMLResponse)
    def report_html(job_id: str) -> FileResponse:
        """The report as one file for people."""
        return _report(job_id, ".html", "text/html; charset=utf-8", REPORT_CSP)

    def _report(
        job_id: str, suffix: str, media_type: str, policy: str | None = None
    ) -> FileResponse:
        status = _known(queue.status(job_id))
        path = store.report_file(status.id, suffix) if status.state == "done" else None
        if path is None:
            raise HTTPException(409, f"no such report: the job is {status.state}")
        headers = {"content-security-policy": policy} if policy else None
        return FileResponse(
            path,
            media_type=media_type,
            headers=headers,
            filename=f"{status.name}{suffix}",
            content_disposition_type="inline",
        )

    return api


def _require_file(request: Request, max_bytes: int) -> None:
    """Refuse what the headers alone give away, before anything is read."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        raise HTTPException(
            415,
            f"{kind}: send the file itself as the body, with Content-Type: application/"
            "octet-stream; curl -X POST -T FILE does",
        )
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit():
        raise HTTPException(400, "Content-Length is not a number")
    if int(declared) > max_bytes:
        raise HTTPException(413, too_large(max_bytes), headers=_CLOSE)


def _refusal(error: BaseException) -> HTTPException | None:
    """What a failed upload answers; None for an error of our own."""
    if isinstance(error, UploadTooLarge):
        return HTTPException(413, str(error), headers=_CLOSE)
    if isinstance(error, UploadTooSlow):
        return HTTPException(408, str(error), headers=_CLOSE)
    if isinstance(error, MediaError):
        return HTTPException(415, str(error))
    if isinstance(error, ClientDisconnect):
        return HTTPException(400, "the upload broke off")  # nobody is there to read it
    if isinstance(error, OSError):
        return HTTPException(507, f"the file cannot be stored: {error.strerror}")
    return None


def _known(status: JobStatus | None) -> JobStatus:
    if status is None:
        raise HTTPException(404, "no such job; the history begins with the server's start")
    return status
