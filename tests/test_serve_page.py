"""The page in headless Chromium: what a person does with it, by mouse, by keyboard, by ear."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from makers_serve import House, medium, serving

from forensics.report import schema

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser: install Chromium to test the page in it"
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect = sync_api.expect
expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong

# The text and ground of every visible piece of text, and whether they differ enough (WCAG 2.2,
# success criterion 1.4.3; large text is held to the same 4.5).
CONTRASTS = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour[3] === undefined || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest(".unseen, .skip")) continue;
    const style = getComputedStyle(node);
    const text = light(parse(node instanceof SVGElement ? style.fill : style.color));
    const below = light(ground(node));
    const ratio = (Math.max(text, below) + 0.05) / (Math.min(text, below) + 0.05);
    found.push([ratio, node.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def it(tmp_path: Path) -> Iterator[House]:
    with serving(tmp_path, max_bytes=200_000, places=3) as it:
        yield it


@pytest.fixture
def page(browser: Any, it: House) -> Iterator[Any]:
    """The page, which must neither complain nor ask any other server for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if "Content Security" in said.text else None,
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(it.address)
    yield page
    context.close()
    assert complaints == []
    assert all(url.startswith((it.address, "blob:")) for url in asked)


def choose(page: Any, **words: str) -> None:
    """Choose files; `name="word"` stands for name.mp4 with that behaviour."""
    page.set_input_files("#file", [file(f"{name}.mp4", word) for name, word in words.items()])


def file(name: str, word: str, size: int = 3000) -> dict[str, Any]:
    return {"name": name, "mimeType": "video/mp4", "buffer": medium(word, size)}


def row(page: Any, name: str) -> Any:
    return page.locator("#jobs li", has_text=name)


def said(page: Any) -> Any:
    """A handle on all that is announced from now on."""
    return page.evaluate_handle(
        """() => {
          const heard = [];
          const announcer = document.getElementById("announcer");
          const listen = (changes) => changes.forEach((change) =>
            change.addedNodes.forEach((node) => heard.push(node.textContent)));
          new MutationObserver(listen).observe(announcer, { childList: true });
          return heard;
        }"""
    )


def test_a_file_is_examined_and_its_report_opens(page: Any, it: House) -> None:
    heard = said(page)
    choose(page, interview="slow")
    expect(row(page, "interview.mp4").get_by_text("Looking at frames:")).to_be_visible()
    bar = page.get_by_role("progressbar", name="Progress of interview.mp4")
    expect(bar).to_be_visible()
    expect(row(page, "interview.mp4")).to_contain_text(re.compile(r"\d\d of 32"))
    assert bar.evaluate("bar => bar.value / bar.max") > 0.2
    report = page.locator("#report")
    expect(report.get_by_role("heading", name="Likely fake")).to_be_visible()
    expect(bar).to_be_hidden()
    expect(row(page, "interview.mp4")).to_contain_text("Likely fake · 0.86")
    expect(report).to_contain_text("It is not proof")
    expect(report).to_contain_text("The whole file could be decoded.")
    expect(report.get_by_role("row")).to_have_count(3)  # the table's head and two people
    expect(report).to_contain_text("a" * 64)
    expect(report.locator(".chart svg polyline")).to_have_count(2)
    announced = heard.json_value()
    assert "interview.mp4: Looking at frames" in announced
    assert announced[-1] == "interview.mp4: Likely fake, probability of fake 0.86"
    assert len(announced) < 10  # stages, not every frame
    with page.expect_download() as download:
        report.get_by_role("link", name="Download JSON").click()
    assert download.value.suggested_filename == "interview.mp4.json"
    document = json.loads(Path(download.value.path()).read_text("utf-8"))
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert document["media"]["path"] == "interview.mp4"
    page.reload()  # the history is the server's
    expect(row(page, "interview.mp4")).to_contain_text("Likely fake · 0.86")


def test_a_broken_file_ends_in_words_and_not_in_a_probability(page: Any) -> None:
    choose(page, torn="broken")
    expect(row(page, "torn.mp4")).to_contain_text("No verdict: cannot be decoded")
    report = page.locator("#report")
    expect(report.get_by_role("heading", name="No verdict: cannot be decoded")).to_be_visible()
    expect(report).to_contain_text("torn.mp4: no moov box")
    expect(report).not_to_contain_text("Probability of fake")


def test_what_is_not_taken_is_said_with_its_reason(page: Any, it: House) -> None:
    expect(page.locator("#limits")).to_contain_text("Up to 0.2 MB")
    heard = said(page)
    page.set_input_files(
        "#file",
        [
            file("huge.mp4", "real", 200_001),
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"just words"},
            file("crash.mp4", "crash"),
        ],
    )
    expect(row(page, "huge.mp4")).to_contain_text("larger than 0.2 MB")
    expect(row(page, "notes.txt")).to_contain_text("a text file, not a medium")
    expect(row(page, "crash.mp4")).to_contain_text("Failed: unexpected RuntimeError: boom in crash")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    assert any("huge.mp4: Not taken" in words for words in heard.json_value())
    assert len(it.queue.changes(0).jobs) == 1


def test_a_server_that_takes_less_than_the_page_knows_is_heard(page: Any, it: House) -> None:
    expect(page.locator("#limits")).to_contain_text("Up to 0.2 MB")
    it.store.max_bytes = 1000
    choose(page, big="real")
    expect(row(page, "big.mp4")).to_contain_text("Not taken")


def test_two_at_once_and_each_can_be_cancelled(page: Any, it: House) -> None:
    choose(page, first="hang", second="real", third="hang")
    expect(row(page, "first.mp4").get_by_text("Looking at frames")).to_be_visible()
    expect(row(page, "second.mp4").get_by_text("Waiting for its turn")).to_be_visible()
    expect(row(page, "third.mp4").get_by_text("Waiting for its turn")).to_be_visible()
    page.get_by_role("button", name="Cancel third.mp4").click()
    expect(row(page, "third.mp4")).to_contain_text("Cancelled")
    page.get_by_role("button", name="Cancel first.mp4").click()
    expect(row(page, "first.mp4")).to_contain_text("Cancelled")
    expect(row(page, "second.mp4")).to_contain_text("No sign of a fake found")
    assert len(it.scanner.seen) == 2


def test_more_files_than_places_are_sent_when_there_is_room(page: Any, it: House) -> None:
    choose(page, **{f"file{n}": "gate" for n in range(7)})
    expect(page.locator("#jobs li", has_text="Waiting for a place")).to_have_count(3)
    it.scanner.gate.set()
    expect(page.locator("#jobs li", has_text="Likely fake")).to_have_count(7)


def test_answers_that_overtake_each_other_neither_double_nor_revive_a_file(
    page: Any, it: House
) -> None:
    def delay(route: Any) -> None:
        answer = route.fetch()
        page.wait_for_timeout(900)  # polls bring the job, and its end, meanwhile
        route.fulfill(response=answer)

    page.route(re.compile(r"/api/jobs\?name=late"), delay)
    choose(page, first="slow", late="real")
    expect(row(page, "first.mp4")).to_contain_text("Likely fake")
    expect(row(page, "late.mp4")).to_have_count(1)
    expect(row(page, "late.mp4")).to_contain_text("No sign of a fake found")
    page.wait_for_timeout(900)
    expect(row(page, "late.mp4")).to_have_count(1)
    expect(row(page, "late.mp4")).to_contain_text("No sign of a fake found")


def test_an_upload_under_way_can_be_cancelled(page: Any, it: House) -> None:
    page.context.new_cdp_session(page).send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000},
    )
    page.set_input_files("#file", [file("long.mp4", "real", 190_000)])
    expect(row(page, "long.mp4").get_by_text("Uploading:")).to_be_visible()
    page.get_by_role("button", name="Cancel long.mp4").click()
    expect(row(page, "long.mp4")).to_contain_text("Cancelled")
    page.wait_for_timeout(300)
    assert (it.files(), it.queue.changes(0).jobs) == ([], [])


def test_files_can_be_dropped_anywhere(page: Any) -> None:
    data = page.evaluate_handle(
        """(head) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(head)], "dropped.png"));
          return data;
        }""",
        list(medium("real")),
    )
    page.dispatch_event("#report", "dragover", {"dataTransfer": data})
    expect(page.locator("#drop.over")).to_be_visible()
    page.dispatch_event("#report", "drop", {"dataTransfer": data})
    expect(row(page, "dropped.png")).to_contain_text("No sign of a fake found")


def focused(page: Any) -> str:
    return page.evaluate(
        "() => { const e = document.activeElement;"
        " return e.id || e.getAttribute('aria-label') || e.textContent; }"
    )


def tab_to(page: Any, name: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if focused(page).startswith(name):
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            hidden = page.evaluate("document.activeElement.id") == "file"  # its label shows it
            assert hidden or page.evaluate(outline) == "solid"
            return
    raise AssertionError(f"the Tab key does not lead to {name}")


def test_everything_can_be_done_with_the_keyboard(page: Any, it: House) -> None:
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the files")).to_be_focused()
    tab_to(page, "file")
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.drop label')).outlineStyle")
        == "solid"
    )
    page.keyboard.press("Enter")
    for _ in range(100):
        page.wait_for_timeout(20)
        if choosers:
            break
    choosers[0].set_files([file("one.mp4", "hang")])
    expect(row(page, "one.mp4").get_by_text("Looking at frames")).to_be_visible()
    tab_to(page, "Cancel one.mp4")
    page.keyboard.press("Enter")
    expect(row(page, "one.mp4")).to_contain_text("Cancelled")
    expect(page.locator("#files-title")).to_be_focused()  # the button is gone, the place is not
    choose(page, two="fake")
    expect(row(page, "two.mp4")).to_contain_text("Likely fake")
    tab_to(page, "Show report of two.mp4")
    page.keyboard.press("Space")
    expect(page.locator("#report")).to_be_focused()
    tab_to(page, "Person 0: probability of fake over time")
    page.keyboard.press("End")
    expect(page.locator(".readout").first).to_have_text("At 9.50 s: probability of fake 0.85.")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".readout").first).to_contain_text("At 9.00 s")
    tab_to(page, "As a table")
    page.keyboard.press("Enter")
    expect(page.get_by_role("cell", name="9.50").first).to_be_visible()


def test_the_chart_tells_what_the_pointer_shows(page: Any) -> None:
    choose(page, clip="fake")
    chart = page.locator(".chart").first
    expect(chart).to_be_visible()
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 20)
    expect(page.locator(".readout").first).to_contain_text("At 9.50 s")


def test_everything_that_acts_has_a_name_and_headings_descend(page: Any) -> None:
    choose(page, one="fake", two="hang")
    expect(page.locator("#report h2")).to_contain_text("Likely fake")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, progress, [tabindex='0']")]
          .filter((e) => !e.getAttribute("aria-label") && !e.textContent.trim())
          .filter((e) => !e.labels?.length)
          .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    levels = page.evaluate(
        "() => [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate("document.documentElement.lang") == "en"
    names = page.locator("main").aria_snapshot()
    assert 'heading "Files" [level=2]' in names
    assert 'button "Cancel two.mp4"' in names


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_nothing_runs_over_the_edge(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    choose(page, fake="fake", real="real", unsure="uncertain", torn="broken", crash="crash")
    page.set_input_files("#file", [file("x" * 90 + ".mp4", "hang"), file("huge.mp4", "", 200_001)])
    expect(row(page, "crash.mp4")).to_contain_text("Failed")
    for label, name in (("fake", "fake"), ("real", "real"), ("sure", "unsure"), ("torn", "torn")):
        page.get_by_role("button", name=f"Show report of {name}.mp4").click()
        expect(page.locator("#report .file")).to_contain_text(label)
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 40
        assert [(ratio, text) for ratio, text in contrasts if ratio < 4.5] == []
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_full_report_opens_in_an_origin_of_its_own(page: Any) -> None:
    choose(page, clip="fake")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open full report").click()
    report = opened.value
    expect(report.get_by_role("heading", name="Likely fake", level=2)).to_be_visible()
    assert report.evaluate("origin") == "null"
    assert report.evaluate("fetch('/api/jobs').then(() => 'read', () => 'refused')") == "refused"
    report.locator(".chart").first.focus()
    report.keyboard.press("End")  # its own script runs
    expect(report.locator(".chart .tip").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download HTML").click()
    assert download.value.suggested_filename == "clip.mp4.html"
    assert Path(download.value.path()).read_text("utf-8").startswith("<!doctype html>")


def test_markup_in_a_name_stays_text(page: Any) -> None:
    name = "<img src=x onerror=window.hit=1>\"'&.mp4"
    page.set_input_files("#file", [file(name, "broken")])
    expect(page.locator("#jobs .name")).to_have_text(name)
    expect(page.locator("#report .file")).to_have_text(name)
    assert page.evaluate("window.hit") is None
    assert page.locator("#jobs img, #report img").count() == 0
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open full report").click()
    expect(opened.value.get_by_text(name).first).to_be_visible()
    assert opened.value.evaluate("window.hit") is None


def test_no_script_can_be_smuggled_into_the_page(browser: Any, it: House) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(it.address)
    refused = page.evaluate(
        """() => {
          try { document.body.innerHTML = "<b>x</b>"; return "taken"; }
          catch (error) { return error.name; }
        }"""
    )
    assert refused == "TypeError"  # trusted types
    context.close()


def test_a_page_of_another_origin_can_neither_send_nor_read(
    browser: Any, it: House, tmp_path: Path
) -> None:
    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{evil.server_port}/")
        outcome = page.evaluate(
            """async ([target, body]) => {
              const blob = new Blob([new Uint8Array(body)]);
              const ask = (options) =>
                fetch(target + "/api/jobs", options).then((r) => r.text(), () => "failed");
              const script = await new Promise((done) => {
                const node = document.createElement("script");
                node.src = target + "/api/jobs";
                node.onload = () => done("loaded");
                node.onerror = () => done("failed");
                document.head.append(node);
              });
              return {
                read: await ask({}),
                script,
                simple: await ask({ method: "POST", mode: "no-cors", body: blob }),
                full: await ask({
                  method: "POST",
                  body: blob,
                  headers: { "content-type": "video/mp4" },
                }),
              };
            }""",
            [it.address, list(medium("real"))],
        )
        context.close()
        evil.shutdown()
    assert outcome == dict.fromkeys(("read", "script", "simple", "full"), "failed")
    assert it.queue.changes(0).jobs == []


def test_a_token_is_the_browsers_password(browser: Any, tmp_path: Path) -> None:
    token = "correct-horse-battery"
    with serving(tmp_path, token=token) as it:
        context = browser.new_context(http_credentials={"username": "", "password": token})
        page = context.new_page()
        page.goto(it.address)
        choose(page, clip="real")
        expect(row(page, "clip.mp4")).to_contain_text("No sign of a fake found")
        expect(page.locator("#report h2")).to_contain_text("No sign of a fake found")
        with context.expect_page() as opened:
            page.get_by_role("link", name="Open full report").click()
        expect(
            opened.value.get_by_role("heading", name="No sign of a fake", level=2)
        ).to_be_visible()
        context.close()


def test_a_server_that_was_stopped_is_said(browser: Any, tmp_path: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    with serving(tmp_path) as it:
        page.goto(it.address)
        choose(page, clip="hang")  # while something runs the page asks often
        expect(row(page, "clip.mp4").get_by_text("Looking at frames")).to_be_visible()
        expect(page.locator("#lost")).to_be_hidden()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer", timeout=10_000)
    context.close()
