"""Reports as one HTML page that needs nothing else: no network, no other file, no permission.

Jinja2 escapes every inserted string; a Content-Security-Policy lets the page's own style sheet and
script run, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from forensics.findings import Evidence, Report
from forensics.report import charts, pictures
from forensics.report.custody import sha256_of
from forensics.report.document import printable, to_document
from forensics.report.moments import extremes, most_suspicious
from forensics.report.rows import clock, commands, media_rows, number
from forensics.report.words import WORDS, error_rates
from forensics.structures import PersonVerdict

# What a reader can take in; a crowd's others stand in a table.
_SHOWN_PEOPLE = 12
_SHOWN_EXTREMES = 3
_THUMBNAILS = 240  # per person; of longer tracks every n-th face
_FACE_SIDE, _THUMBNAIL_SIDE = 192, 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One face of a page: `picture` and `heated` are addresses of pictures."""

    place: int
    time: str
    probability: float
    face_px: float
    sharpness: float
    sharpness_word: str
    picture: str
    heated: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The part of a page about one file; `body` is finished, escaped HTML."""

    id: str
    name: str
    label: str
    headline: str
    probability: float | None
    body: Markup


def render(reports: Report | Sequence[Report], evidence: Evidence | None = None) -> str:
    """One page for one or several reports, a section each.

    Heat maps, Content Credentials and the detector's card are shown where a scan kept them
    (`keep_evidence=True`); `evidence` stands in for that of a single report.
    """
    several = [reports] if isinstance(reports, Report) else list(reports)
    return page([section(report, n, evidence) for n, report in enumerate(several)])


def section(report: Report, place: int, evidence: Evidence | None = None) -> Section:
    """What a page says of one file. Crops are not needed afterwards: for many files, make each
    section as its report comes. `place` makes the section's anchor, `#f0` for the first."""
    shown = _file(report, evidence or report.evidence, place)
    return Section(
        id=shown["id"],
        name=shown["name"],
        label=report.verdict.label,
        headline=shown["words"].headline,
        probability=report.verdict.probability,
        body=Markup(_template("article.html").render(file=shown)),
    )


def page(sections: Sequence[Section]) -> str:
    """The whole page."""
    style, script = Markup(_asset("style.css")), Markup(_asset("page.js"))
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    return _template("page.html").render(files=sections, style=style, script=script, policy=policy)


@cache
def _template(name: str) -> Template:

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["safe_text"] = lambda value: printable(str(value))
    return environment.from_string(_asset(name))


@cache
def _asset(name: str) -> str:
    return resources.files("forensics.report").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _file(report: Report, evidence: Evidence | None, place: int) -> dict[str, Any]:
    """What the template shows of one file; only strings that it escapes, but for the charts."""
    document = to_document(report)
    verdict = report.verdict
    people = [
        _person(person, report, evidence, f"f{place}-p{n}")
        for n, person in enumerate(verdict.people[:_SHOWN_PEOPLE])
    ]
    card: Mapping[str, Any] = evidence.card if evidence else {}
    metrics = cast("Mapping[str, Any]", card.get("metrics") or {})
    return {
        "id": f"f{place}",
        "name": printable(report.path.rstrip("/").rpartition("/")[2] or report.path),
        "document": document,
        "words": WORDS[verdict.label],
        "label": verdict.label,
        "gauge": _gauge(report),
        "people": people,
        "others": document["people"][_SHOWN_PEOPLE:],
        "heat_method": evidence.heat_method if evidence else None,
        "facts": media_rows(document["media"]),
        "credentials": document["media"]["credentials"]
        or (_as_plain(evidence) if evidence else None),
        "card": card,
        "metrics": [(name, number(value)) for name, value in metrics.items()],
        "error_rates": error_rates(metrics) if card else (),
        "commands": commands(report),
        "digest": sha256_of(document),
    }


def _as_plain(evidence: Evidence) -> dict[str, Any]:
    found = evidence.credentials
    return {
        "state": found.state,
        "detail": found.detail,
        "library": found.library,
        "generator": found.generator,
        "signer": found.signer,
        "signed_at": found.signed_at,
        "actions": list(found.actions),
        "codes": [
            {"outcome": outcome, "code": code, "explanation": said}
            for outcome, code, said in found.codes
        ],
    }


def _gauge(report: Report) -> dict[str, float] | None:
    """Places on a bar of 600 units."""
    verdict = report.verdict
    if verdict.probability is None or verdict.thresholds is None:
        return None
    interval = verdict.people[0].score.interval or (verdict.probability, verdict.probability)
    return {
        "here": 600 * verdict.probability,
        "low": 600 * interval[0],
        "width": max(600 * (interval[1] - interval[0]), 2.0),
        "real": 600 * verdict.thresholds.real,
        "fake": 600 * verdict.thresholds.fake,
    }


def _person(
    person: PersonVerdict, report: Report, evidence: Evidence | None, name: str
) -> dict[str, Any]:
    score, track = person.score, person.score.track
    heat = {
        heated.place: heated.heat
        for heated in (evidence.heat_maps if evidence else ())
        if heated.person == track.id
    }

    def show(place: int, side: int, *, heated: bool) -> Shown:
        crop = track.crops[place]
        x0, y0, x1, y1 = track.boxes[place].tolist()
        sharp = pictures.sharpness(crop)
        return Shown(
            place=place,
            time=clock(float(track.times_s[place])),
            probability=float(score.frame_probabilities[place]),
            face_px=max(x1 - x0, y1 - y0),
            sharpness=sharp,
            sharpness_word=pictures.in_words(sharp),
            picture=pictures.data_address(crop, side),
            heated=pictures.data_address(pictures.with_heat(crop, heat[place]), side)
            if heated and place in heat
            else None,
        )

    most, least = extremes(score, _SHOWN_EXTREMES)
    step = math.ceil(len(track.times_s) / _THUMBNAILS)
    info = report.info
    span = (info.first_s, info.last_s) if info and info.kind == "video" else (0.0, 0.0)
    span = min(span[0], float(track.times_s[0])), max(span[1], float(track.times_s[-1]))
    moment = most_suspicious(score)
    return {
        "id": track.id,
        "name": name,
        "label": person.label,
        "headline": WORDS[person.label].headline,
        "probability": score.probability,
        "interval": score.interval,
        "sufficient": person.sufficient,
        "num_frames": len(track.times_s),
        "face_px": track.face_px,
        "sharpness": [face.sharpness_word for face in (show(p, 8, heated=False) for p in most)],
        "moment": f"{clock(moment.start_s)} to {clock(moment.end_s)}"
        if moment.end_s > moment.start_s
        else f"at {clock(moment.start_s)}",
        "peak": moment.probability,
        # Our own drawing of numbers: the only thing that goes into the page unescaped.
        "chart": Markup(charts.timeline(score, report.verdict.thresholds, span, name))
        if len(track.times_s) > 1
        else None,
        "most": [show(place, _FACE_SIDE, heated=True) for place in most],
        "least": [show(place, _FACE_SIDE, heated=True) for place in least],
        "all": [
            show(place, _THUMBNAIL_SIDE, heated=False)
            for place in range(0, len(track.times_s), step)
        ],
    }
