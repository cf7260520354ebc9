"""Signed reports, and everything that somebody might do to one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers_report import FakeScanner, abstained, judged, person
from typer.testing import CliRunner

import forensics
from forensics.errors import ConfigError, ReportError
from forensics.findings import Report
from forensics.report import json_text, to_document
from forensics.report.comparison import compare
from forensics.report.custody import canonical, host_facts, sha256_of
from forensics.report.reading import read_document
from forensics.report.signature import Signer, holds, load_public_key
from forensics.report.verification import proven, verify

pytest.importorskip("cryptography", reason="cryptography is not installed")
(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")
Document = dict[str, Any]


def make_key(path: Path, kind: str = "ed25519", password: bytes | None = None) -> Path:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key: Any = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else ec.generate_private_key(ec.SECP256R1())
    )
    hidden: Any = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, hidden))
    public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "lab.pem")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"frames" * 1000)
    return path


def about(video: Path) -> Report:
    """A report whose numbers agree with each other and with the file."""
    seen = person([0.9, 0.95, 0.88, 0.91])
    score = dataclasses.replace(seen.score, probability=0.91)
    report = judged(str(video))
    return dataclasses.replace(
        report,
        sha256=hashlib.sha256(video.read_bytes()).hexdigest(),
        num_bytes=video.stat().st_size,
        host=host_facts("cpu", 4),
        verdict=dataclasses.replace(
            report.verdict, people=(dataclasses.replace(seen, score=score),)
        ),
    )


def outcomes(document: Document, **given: Any) -> dict[str, str]:
    return {check.subject: check.outcome for check in verify(document, **given)}


@pytest.fixture
def signed(key: Path, video: Path, tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_text(json_text(about(video), Signer(key).sign))
    return path


def test_a_signed_report_is_proven_by_the_key_and_belongs_to_its_video(
    signed: Path, key: Path, video: Path
) -> None:
    public = load_public_key(key.with_suffix(".pub"))
    checks = verify(read_document(signed), video=video, public_key=public)
    assert {check.outcome for check in checks} == {"matches"}
    assert proven(checks)
    without_key = verify(read_document(signed), video=video)
    assert not proven(without_key)


def test_layout_and_order_of_a_file_do_not_matter_its_content_does(signed: Path) -> None:
    document = read_document(signed)
    items = list(document.items())
    random.Random(0).shuffle(items)
    signed.write_text(json.dumps(dict(items), ensure_ascii=False, indent=7))
    assert holds(read_document(signed))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, inner in pairs for found in leaves(inner, (*path, key))]
    return [path]


def test_no_value_of_a_signed_report_can_be_changed_unnoticed(signed: Path) -> None:
    whole = read_document(signed)
    places = leaves(whole)
    assert len(places) > 80
    for place in places:
        document = json.loads(json.dumps(whole))
        target = document
        for key in place[:-1]:
            target = target[key]
        old = target[place[-1]]
        if isinstance(old, str):
            target[place[-1]] = old[:-1] + ("0" if old[-1:] != "0" else "1")
        else:
            target[place[-1]] = not old if isinstance(old, bool) else (old or 0) + 1
        if place[0] == "signature" and place[-1] == "algorithm":
            continue  # the schema knows one only
        assert not holds(document), place


def test_an_edited_word_is_found_even_without_a_signature(video: Path) -> None:
    document = to_document(about(video))
    assert set(outcomes(document, video=video).values()) == {"matches", "not checked"}

    def relabel(edited: Document) -> None:
        edited["verdict"]["label"] = edited["people"][0]["label"] = "likely_real"

    for change in (
        relabel,
        lambda d: d["verdict"].update(label="likely_real"),
        lambda d: d["verdict"].update(probability=0.1),
        lambda d: d["people"][0]["frames"].pop(),
    ):
        edited = json.loads(json.dumps(document))
        change(edited)
        assert outcomes(edited)["verdict"] == "differs"
    edited = json.loads(json.dumps(document))
    edited["config"]["sampling"]["frames"] = 5
    assert outcomes(edited)["settings"] == "differs"


def test_a_report_signed_again_with_another_key_is_told_from_the_labs(
    signed: Path, key: Path, tmp_path: Path
) -> None:
    document = read_document(signed)
    document["people"][0]["face_px"] = 999.0
    forged = Signer(make_key(tmp_path / "forger.pem")).sign(document)
    public = load_public_key(key.with_suffix(".pub"))
    found = outcomes(forged, public_key=public)
    assert (found["signature"], found["signer"]) == ("matches", "differs")
    named = {**forged, "signature": {**forged["signature"], "public_key": public}}
    assert outcomes(named, public_key=public)["signature"] == "differs"


def test_a_signature_from_another_report_does_not_fit(signed: Path, key: Path) -> None:
    document = read_document(signed)
    other = Signer(key).sign(to_document(abstained()))
    assert not holds({**document, "signature": other["signature"]})


def test_a_removed_signature_proves_nothing_and_fails_where_one_is_demanded(
    signed: Path, key: Path
) -> None:
    document = read_document(signed)
    del document["signature"]
    assert outcomes(document)["signature"] == "not checked"
    public = load_public_key(key.with_suffix(".pub"))
    assert outcomes(document, public_key=public)["signature"] == "differs"
    assert not proven(verify(document))


@pytest.mark.parametrize("value", ["00" * 32, "ff" * 32, "01" + "00" * 31])
def test_weak_and_broken_keys_inside_a_report_prove_nothing(signed: Path, value: str) -> None:
    document = read_document(signed)
    document["signature"]["public_key"] = value
    assert not holds(document)


def test_another_video_is_told_apart_by_size_or_content(signed: Path, video: Path) -> None:
    document = read_document(signed)
    changed = bytearray(video.read_bytes())
    changed[7] ^= 1
    video.write_bytes(bytes(changed))
    (check,) = (c for c in verify(document, video=video) if c.subject == "video")
    assert (check.outcome, check.detail) == ("differs", "another file: as long, but changed")
    video.write_bytes(b"short")
    (check,) = (c for c in verify(document, video=video) if c.subject == "video")
    assert check.detail == "another file: 5 bytes instead of 6000"


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _twice(text: str) -> str:
    return text.replace(
        '"label": "likely_fake"', '"label": "likely_fake", "label": "likely_real"', 1
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "cut off or edited"),
        (lambda text: "", "cut off or edited"),
        (lambda text: text + text, "more than one report"),
        (_twice, "a key occurs twice"),
        (lambda text: text.replace("0.91", "NaN"), "NaN is not JSON"),
        (lambda text: text.replace("0.91", "1.91"), "does not follow deepfake-report/2"),
        (lambda text: text.replace("deepfake-report/2", "other/1"), "says schema"),
        (lambda text: "[" * 100_000, "not a report"),
        (lambda text: "[]", "says schema"),
        (lambda text: text.replace('"sha256": "b', '"sha256": "x'), "does not follow"),
        (lambda text: text.replace('"people"', '"persons"'), "does not follow"),
    ],
)
def test_what_is_no_whole_report_ends_in_one_line(
    signed: Path, spoil: Callable[[str], str], said: str
) -> None:
    signed.write_text(spoil(signed.read_text()))
    with pytest.raises(ReportError, match=said) as caught:
        read_document(signed)
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_that_are_no_text_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "r.json", tmp_path / "absent.json", tmp_path):
        with pytest.raises(ReportError, match=str(path)):
            read_document(path)


def test_keys_that_are_none_are_named(tmp_path: Path, key: Path) -> None:
    make_key(tmp_path / "ec.pem", "ec")
    make_key(tmp_path / "hidden.pem", password=b"secret")
    (tmp_path / "text.pem").write_text("no key")
    for name, said in (
        ("ec.pem", "not an Ed25519 key"),
        ("hidden.pem", "the key is encrypted"),
        ("text.pem", "not a private key in PEM"),
        ("absent.pem", "cannot be read"),
        ("lab.pub", "not a private key in PEM"),
    ):
        with pytest.raises(ConfigError, match=said):
            Signer(tmp_path / name)
    for name, said in (("lab.pem", "not a public key"), ("ec.pub", "not an Ed25519 key")):
        with pytest.raises(ConfigError, match=said):
            load_public_key(tmp_path / name)


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53) + 1, 2**53 - 1)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), values, max_size=5))
def test_canonical_bytes_survive_a_way_through_json(document: Document) -> None:
    again = json.loads(json.dumps(document, ensure_ascii=True, indent=1))
    assert canonical(again) == canonical(document)
    assert sha256_of(again) == hashlib.sha256(canonical(document)).hexdigest()


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    # Its section 3.2.4, shortened: order by UTF-16, numbers as ECMAScript writes them.
    document = {"\u20ac": 1, "\r": 2, "1": [1e30, 4.50, 2e-3, 1e-27], "a": "\u000f\n'"}
    said = '{"\\r":2,"1":[1e+30,4.5,0.002,1e-27],"a":"\\u000f\\n\'","\u20ac":1}'
    assert canonical(document) == said.encode()
    with pytest.raises(ReportError, match="canonically"):
        canonical({"a": float("nan")})


def test_the_host_is_described_without_naming_machine_or_user() -> None:
    import getpass
    import socket

    facts = host_facts("cpu", 3)
    assert facts["threads"] == 3
    assert set(facts) == {
        "system", "release", "machine", "processor", "cores", "threads", "device",
    }  # fmt: skip
    said = " ".join(str(value) for value in facts.values()).split()
    assert socket.gethostname() not in said
    assert getpass.getuser() not in said


def test_on_the_same_machine_numbers_must_be_equal_elsewhere_close(video: Path) -> None:
    before = to_document(about(video))

    def after(change: Callable[[Document], object], **host: Any) -> dict[str, str]:
        document = json.loads(json.dumps(before))
        document["host"].update(host)
        change(document)
        return {check.subject: check.outcome for check in compare(before, document)}

    def shift(by: float) -> Callable[[Document], object]:
        def change(document: Document) -> None:
            document["verdict"]["probability"] += by
            document["people"][0]["probability"] += by

        return change

    same = dict.fromkeys(("video", "detector", "media", "verdict", "people"), "matches")
    assert after(lambda d: None) == same
    assert after(lambda d: d["media"].update(path="elsewhere")) == same
    assert after(shift(1e-6))["verdict"] == "differs"
    assert after(shift(0.02), cores=64) == same
    assert after(shift(0.04), cores=64)["verdict"] == "differs"
    assert after(lambda d: d["detector"].update(sha256="c" * 64))["detector"] == "differs"
    moved = after(lambda d: d["people"][0]["frames"][0]["box_xyxy"].__setitem__(0, 20.0), cores=64)
    assert moved["people"] == "differs"
    gone = after(lambda d: d["people"].clear(), cores=64)
    assert gone["people"] == "differs"

    def relabel(document: Document) -> None:
        document["verdict"]["label"] = "likely_real"

    assert after(relabel, cores=64)["verdict"] == "differs"


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def deepfake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(SCRIPT.load(), list(arguments), env={"COLUMNS": "100"})
        return result.exit_code, result.stdout, result.stderr

    return run


def test_the_exit_status_of_verify_says_proven_differs_error_or_unproven(
    deepfake: Command, signed: Path, key: Path, video: Path, tmp_path: Path
) -> None:
    report, public = str(signed), str(key.with_suffix(".pub"))
    assert deepfake("verify", report, str(video), "--key", public)[0] == 0
    assert deepfake("verify", report)[0] == 3
    other = make_key(tmp_path / "other.pem").with_suffix(".pub")
    code, out, _ = deepfake("verify", report, "--key", str(other))
    assert code == 1
    assert "signer     differs" in out
    assert deepfake("verify", report, str(key))[0] == 1
    code, out, err = deepfake("verify", "absent.json")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    code, out, err = deepfake("verify", report, "absent.mp4")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_scan_signs_what_it_prints_and_what_it_writes(
    deepfake: Command, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(forensics), "Scanner", FakeScanner)
    Path("fake.mp4").touch()
    code, out, _ = deepfake("scan", "fake.mp4", "--json", "--out", "reports", "--sign", str(key))
    assert code == 1
    assert holds(json.loads(out))
    assert holds(read_document(Path("reports/fake.mp4.json")))
    code, out, err = deepfake("scan", "fake.mp4", "--sign", str(key))
    assert (code, out) == (2, "")
    assert err == "deepfake: --sign signs JSON reports: give --json or --out, too\n"
    assert deepfake("scan", "fake.mp4", "--json", "--sign", "absent.pem")[:2] == (2, "")


def test_rerun_repeats_with_the_reports_settings_and_refuses_another_file(
    deepfake: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from makers import write_video
    from portraits import portrait, scene

    def draw(number: int, width: int, height: int) -> Any:
        return scene(height, width, [(portrait(), 4 + number, 2)])

    clip = write_video(tmp_path / "face.mp4", frames=12, size=(288, 260), rate=6, draw=draw)
    detector = ("--detector", str(tiny_checkpoint))
    code, out, err = deepfake(
        "scan", str(clip), "--json", "--frames", "6", "--device", "cpu", *detector
    )
    assert code in (0, 1), err
    document = json.loads(out)
    assert document["people"], document["verdict"]
    report = tmp_path / "r.json"
    report.write_text(out)
    moved = clip.rename(tmp_path / "moved.mp4")
    code, out, err = deepfake("rerun", str(report), str(moved), *detector)
    assert code == 0, out + err
    assert "equal" in out
    document["people"][0]["frames"][2]["probability"] += 1e-6
    report.write_text(json.dumps(document))
    code, out, _ = deepfake("rerun", str(report), str(moved), *detector)
    assert code == 1
    assert "people    differs" in out
    moved.write_bytes(moved.read_bytes() + b"\0")
    code, out, err = deepfake("rerun", str(report), str(moved), *detector)
    assert code == 1
    assert "another file" in out
    assert err.endswith("nothing was repeated\n")
