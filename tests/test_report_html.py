"""The HTML report: complete, escaped, quiet; and in a browser, where one is installed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers_report import HOSTILE, abstained, judged, person

from forensics.findings import Credentials, Evidence, HeatMap, Report
from forensics.report.html import page, render, section
from forensics.report.pictures import in_words, sharpness, with_heat
from forensics.report.rows import clock
from forensics.report.words import WORDS, error_rates
from forensics.structures import PersonVerdict

MARKUP = "<img src=x onerror=alert(1)><script>document.title='owned'</script>\"'&{{7*7}}"


def seen(probabilities: list[float], track_id: int = 0) -> PersonVerdict:
    """A person whose every crop looks different."""
    made = person(probabilities, track_id=track_id)
    random = np.random.default_rng(track_id)
    crops = random.integers(0, 255, (len(probabilities), 64, 64, 3), dtype=np.uint8)
    track = dataclasses.replace(made.score.track, crops=crops)
    score = dataclasses.replace(made.score, track=track, interval=(0.5, 0.95))
    return dataclasses.replace(made, score=score)


def shown(path: str = "clip.mp4", text: str = "plain", **changes: Any) -> Report:
    """A report with everything a page can show; `text` is what strangers wrote into it."""
    report = judged(path, **changes)
    assert report.info is not None
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    evidence = Evidence(
        heat_maps=tuple(HeatMap(person=0, place=n, heat=ramp) for n in range(4)),
        heat_method="By a test.",
        credentials=Credentials(
            state="invalid",
            detail=text,
            library="c2pa",
            generator=text,
            signer=text,
            signed_at=text,
            actions=(text,),
            codes=(("failure", text, text),),
        ),
        card={
            "model": text,
            "preprocessing": {"size": 64},
            "training_data": text,
            "licence": text,
            "metrics": {"set": text, "auc": 0.7, "auc_95": (0.6, 0.8), text: text},
        },
    )
    verdict = dataclasses.replace(
        report.verdict,
        people=(seen([0.9, 0.95, 0.88, 0.4]), seen([0.2, 0.1], 1)),
        reasons=(text,),
    )
    info = dataclasses.replace(report.info, tags=((text, text),), codec=text)
    return dataclasses.replace(report, evidence=evidence, verdict=verdict, info=info)


@cache
def plain_page() -> str:
    return render(shown())


class Structure(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def structure(text: str) -> Structure:
    parser = Structure()
    parser.feed(text)
    return parser


def test_a_page_shows_verdict_people_media_card_hashes_and_how_to_repeat_it() -> None:
    report = shown()
    text = " ".join(" ".join(structure(plain_page()).text).split())
    for expected in (
        "Likely fake", WORDS["likely_fake"].means_not, "91.0%", "Person 0", "Person 1",
        "Most suspicious faces", "Least suspicious faces", "640 x 360 px", "25.00 per second",
        "100.0% of what the file promises", "Content Credentials", "invalid", "How often it errs",
        report.sha256, report.detector.sha256, "deepfake rerun REPORT.json clip.mp4",
        "--decoder pyav", "By a test.",
    ):  # fmt: skip
        assert expected is not None
        assert expected in text, expected


@pytest.mark.parametrize("label", sorted(WORDS))
def test_every_label_has_words_and_a_page(label: Any) -> None:
    if label in ("likely_fake", "likely_real", "uncertain"):
        report = shown()
        verdict = dataclasses.replace(report.verdict, label=label, people=(seen([0.5]),))
        text = render(dataclasses.replace(report, verdict=verdict))
    else:
        text = render(abstained(label))
        assert "not a file that passed" in text or "Sound is not examined" in text
    assert WORDS[label].headline in text


def test_a_page_needs_nothing_but_itself_and_its_policy_fits() -> None:
    text = render([shown(), abstained()])
    found = structure(text)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert name != "style"
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action"):
                assert value is not None
                assert value.startswith(("data:image/jpeg;base64,", "#"))
    policy = next(
        str(attributes["content"])
        for tag, attributes in found.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_identifiers_are_unique_and_labels_lead_somewhere() -> None:
    found = structure(render([shown(), shown("b"), abstained()]))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.tags:
        for name in ("aria-labelledby", "data-strip"):
            assert name not in attributes or attributes[name] in ids
        link = attributes.get("href")
        assert not (link and link.startswith("#")) or link[1:] in ids


@pytest.mark.parametrize("text", [MARKUP, "</script><b>", "' onmouseover='x", "\x1b[2J\u202etxt"])
def test_what_strangers_wrote_stays_text(text: str) -> None:
    plain = structure(render(shown()))
    hostile = structure(render(shown(f"dir/{text}.mp4".replace("\x00", ""), text)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(names) for _, names in hostile.tags] == [
        sorted(names) for _, names in plain.tags
    ]
    assert "\x1b" not in render(shown(HOSTILE, text))
    assert "\u202e" not in render(shown(HOSTILE, text))


def test_the_same_report_gives_the_same_page() -> None:
    assert render(shown()) == plain_page()


def test_a_page_without_evidence_says_what_was_not_kept() -> None:
    text = render(dataclasses.replace(shown(), evidence=None))
    assert "not kept with this scan" in text
    assert "Not looked at in this scan" in text
    assert "Heat map of the same face" not in text


def test_sections_made_one_by_one_are_the_page_of_all() -> None:
    reports = [shown("a.mp4"), abstained(path="b.mp4")]
    assert page([section(report, n) for n, report in enumerate(reports)]) == render(reports)
    assert "2 files examined" in render(reports)
    assert "1 files" not in render(reports[0])


def test_a_crowd_and_a_long_track_stay_readable() -> None:
    report = shown()
    people = tuple(seen([0.1, 0.2], n) for n in range(40))
    crowd = dataclasses.replace(report, verdict=dataclasses.replace(report.verdict, people=people))
    text = render(crowd)
    assert "Other people" in text
    assert text.count('class="person"') == 12
    long = dataclasses.replace(
        report, verdict=dataclasses.replace(report.verdict, people=(seen([0.5] * 1000),))
    )
    text = render(long)
    assert "200 of 1000" in text
    assert len(text) < 3_000_000


def test_a_single_look_has_no_timeline() -> None:
    report = shown()
    one = dataclasses.replace(report.verdict, people=(seen([0.9]),))
    text = render(dataclasses.replace(report, verdict=one))
    assert "The face" in text
    assert "Suspicion over time" not in text
    assert "Least suspicious" not in text


def test_one_frame_is_a_frame() -> None:
    report = shown()
    assert report.stats is not None
    stats = dataclasses.replace(report.stats, decoded_frames=1)
    assert "(1 frame)" in render(dataclasses.replace(report, stats=stats))
    assert "frames)</td>" in plain_page()


def test_error_rates_are_said_in_sentences_or_said_to_be_missing() -> None:
    said = error_rates(
        {"false_alarm_rate": 0.037, "real_videos": 27.0, "fakes_found": 0.29, "fake_videos": 38.0}
    )
    assert said[0] == "Of 27 real videos it was measured on, it called 4% likely fake."
    assert "missed the others" in said[1]
    assert "cannot be weighed" in error_rates({})[0]


def test_times_are_written_as_players_show_them() -> None:
    assert [clock(s) for s in (0.0, 59.99, 61.25, 3725.0)] == [
        "0.00 s", "59.99 s", "1:01.2", "1:02:05.0",
    ]  # fmt: skip


def test_sharpness_falls_with_blur_and_heat_colours_what_is_hot() -> None:
    random = np.random.default_rng(0)
    sharp = random.integers(0, 255, (224, 224, 3), dtype=np.uint8)
    flat = np.full_like(sharp, 90)
    assert sharpness(sharp) > 150 > 40 > sharpness(flat)
    assert (in_words(sharpness(sharp)), in_words(sharpness(flat))) == ("sharp", "blurred")
    heat = np.zeros((224, 224), np.float32)
    heat[:, 112:] = 1
    mixed = with_heat(flat, heat)
    assert np.array_equal(mixed[:, :112], flat[:, :112])
    assert mixed[:, 112:].std(axis=2).min() > 5  # no grey where it is hot


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page from disk; in the end nothing was asked for, refused or broken."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append("a dialog was opened"))
    tab.on(
        "request",
        lambda request: (
            complaints.append(request.url)
            if not request.url.startswith(("data:", "file:"))
            else None
        ),
    )

    def show(text: str) -> Any:
        target = tmp_path / "report.html"
        target.write_text(text, encoding="utf-8")
        tab.goto(target.as_uri())
        return tab

    yield show
    context.close()
    assert complaints == []


def test_in_a_browser_markup_in_names_and_tags_is_shown_and_not_run(opened: Any) -> None:
    path = MARKUP.replace("/", "|") + ".mp4"
    tab = opened(render(shown(path, MARKUP)))
    assert tab.title().startswith("Likely fake: <img src=x")
    assert tab.locator(".path").inner_text() == path
    assert tab.locator("img[src=x]").count() == 0
    assert tab.locator(".reasons li").first.inner_text() == MARKUP
    assert tab.evaluate("document.title") != "owned"


def test_in_a_browser_the_timeline_shows_each_face_by_mouse_and_by_keyboard(opened: Any) -> None:
    tab = opened(render([shown(), shown("other.mp4")]))
    chart = tab.locator(".chart").first
    chart.scroll_into_view_if_needed()
    tip = chart.locator(".tip")
    assert not tip.is_visible()
    box = chart.locator(".point").nth(1).bounding_box()
    tab.mouse.move(box["x"] + 3, box["y"] + 30)
    assert tip.is_visible()
    assert tip.inner_text() == "95.0% at 0.50 s"
    first = tip.locator("img").get_attribute("src")
    assert first == tab.locator("#f0-p0-strip li").nth(1).locator("img").get_attribute("src")
    tab.mouse.move(0, 0)
    assert not tip.is_visible()
    chart.focus()
    tab.keyboard.press("ArrowRight")
    assert tip.is_visible()
    assert tip.inner_text() == "90.0% at 0.00 s"
    tab.keyboard.press("End")
    assert tip.inner_text() == "40.0% at 1.50 s"
    tab.keyboard.press("Escape")
    assert not tip.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_in_a_browser_nothing_overflows_and_text_stands_out(
    opened: Any, scheme: str, width: int
) -> None:
    tab = opened(render(shown("x" * 180 + ".mp4", "word " * 40)))
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    # WCAG 2.2: 4.5 to 1 for text, against the first background that is not transparent.
    worst = tab.evaluate(
        """() => {
        const light = (c) => {
          const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (e) => {
          for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (!c.endsWith(", 0)")) return c;
          }
          return "rgb(255, 255, 255)";
        };
        let least = [99, ""];
        const texts = "h1,h2,h3,h4,p,dt,dd,li,td,th,a,span,figcaption,code,summary";
        for (const e of document.querySelectorAll(texts)) {
          const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
          const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 80)];
        }
        return least;
        }"""
    )
    assert worst[0] >= 4.5, worst


def test_in_a_browser_a_page_prints_on_few_sheets(opened: Any) -> None:
    tab = opened(plain_page())
    document = tab.pdf(format="A4", print_background=True)
    assert document.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", document)) <= 5
