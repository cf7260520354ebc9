"""The report: its schema, its writers, and what a hostile name or number does to them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers_report import HOSTILE, abstained, judged, person

from forensics.errors import ConfigError
from forensics.report import (
    COLUMNS,
    WRITERS,
    csv_header,
    csv_row,
    json_line,
    most_suspicious,
    printable,
    readable_path,
    schema,
    to_document,
    write,
)
from forensics.structures import Label


def check(document: Any) -> None:
    jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker()).validate(
        document
    )


def test_the_schema_is_valid_and_lists_exactly_the_labels_there_are() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    listed = schema()["properties"]["verdict"]["properties"]["label"]["enum"]
    assert sorted(listed) == sorted(get_args(Label))


def test_a_verdict_follows_the_schema_and_holds_the_keys_of_the_issue() -> None:
    document = to_document(judged())
    check(document)
    assert document["schema"] == "deepfake-report/2"
    assert {
        *("path", "sha256", "container", "codec", "width", "height", "duration_s"),
        *("declared_frames", "decoded_frames", "coverage"),
    } <= document["media"].keys()
    assert document["verdict"]["thresholds"] == {"real": 0.2, "fake": 0.8}
    frame = document["people"][0]["frames"][1]
    assert frame == {"time_s": 0.5, "box_xyxy": [10.0, 10.0, 60.0, 70.0], "probability": 0.95}


@pytest.mark.parametrize(
    "label", ["no_face", "undecodable", "no_video_stream", "limit_exceeded", "unsupported"]
)
def test_an_abstention_follows_the_schema_without_a_probability(label: Label) -> None:
    document = to_document(abstained(label))
    check(document)
    assert document["verdict"]["probability"] is None
    assert document["media"]["coverage"] is None


def test_the_schema_refuses_a_verdict_without_people_and_an_abstention_with_a_probability() -> None:
    without_people = {**to_document(judged()), "people": []}
    guessing = to_document(abstained())
    guessing["verdict"]["probability"] = 0.5
    for wrong in (without_people, guessing, {**to_document(judged()), "extra": 1}):
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)


def test_numbers_that_are_not_finite_become_null_and_never_nan() -> None:
    report = judged(config={"fps": math.nan, "list": [math.inf, 1]}, seconds=0.5)
    assert "NaN" not in json_line(report)
    assert json.loads(json_line(report))["config"] == {"fps": None, "list": [None, 1]}


def test_json_is_one_line_of_ascii_whatever_the_name() -> None:
    text = json_line(judged(HOSTILE))
    assert text.isascii()
    assert text.count("\n") == 1
    path = json.loads(text)["media"]["path"]
    assert path.endswith(r"\xff\xfe")
    path.encode("utf-8")


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_holds_no_control_and_encodes(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    readable_path(text).encode("utf-8")


def test_csv_has_one_row_per_report_with_stable_columns() -> None:
    text = WRITERS[".csv"]([judged(), abstained(), judged(HOSTILE)])
    assert len(text.splitlines()) == 4
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["label"] == "likely_fake"
    assert rows[0]["suspicious_from_s"] == "0.0"
    assert rows[0]["suspicious_to_s"] == "1.0"
    assert rows[1]["probability"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝"])
def test_a_name_that_is_a_formula_is_quoted_in_csv(start: str) -> None:
    (row,) = csv.DictReader(io.StringIO(csv_header() + csv_row(judged(f"{start}1+1.mp4"))))
    assert row["path"] == f"'{start}1+1.mp4"


def test_a_written_file_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    write(target, judged())
    check(json.loads(target.read_text("utf-8")))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "report.csv"
    target.write_text("old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[broken], full)
    with pytest.raises(OSError, match="No space left"):
        write(target, [judged(), judged()])
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]


@pytest.mark.parametrize("size", [0, 100])
def test_a_disk_that_fills_up_is_told_of_the_file_that_was_asked_for(
    tmp_path: Path, size: int
) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")
    code = (
        "import resource, sys\n"
        "from forensics.report import write\n"
        "from makers_report import judged\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "try: write(sys.argv[1], judged())\n"
        "except OSError as error: print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert answer.stdout == f"[Errno 27] File too large: '{target}'\n"
    assert (target.read_text(), len(list(tmp_path.iterdir()))) == ("old", 1)


def test_a_report_never_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.mkdir()
    with pytest.raises(IsADirectoryError, match=r"report\.json'$"):
        write(target, judged())
    assert list(tmp_path.iterdir()) == [target]


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"use one of \.json, \.csv, \.html"):
        write(tmp_path / "report.xml", judged())


@pytest.mark.parametrize(
    ("probabilities", "span"),
    [
        ([0.5], (0.0, 0.0)),
        ([0.1, 0.9, 0.85, 0.2], (0.5, 1.0)),
        ([0.9, 0.1, 0.9], (0.0, 0.0)),
        ([0.2, 0.2, 0.2], (0.0, 1.0)),
    ],
)
def test_the_most_suspicious_moment_spans_the_neighbours_of_the_peak(
    probabilities: list[float], span: tuple[float, float]
) -> None:
    moment = most_suspicious(person(probabilities).score)
    assert (moment.start_s, moment.end_s) == span
    assert moment.probability == max(probabilities)


def test_several_reports_become_json_lines() -> None:
    writer: Callable[..., str] = WRITERS[".json"]
    lines = writer([judged("a"), judged("b")]).splitlines()
    assert [json.loads(line)["media"]["path"] for line in lines] == ["a", "b"]


def test_the_published_schema_is_the_one_in_force() -> None:
    published = Path(__file__).parents[1] / "docs" / "deepfake-report-2.schema.json"
    assert json.loads(published.read_text("utf-8")) == schema()
    name = schema()["properties"]["schema"]["const"]
    assert name == "deepfake-report/2"
    described = published.with_name("report-schema.md").read_text("utf-8")
    media = schema()["properties"]["media"]["properties"]
    for field in (*schema()["properties"], *media):
        assert f"`{field}" in described, field
