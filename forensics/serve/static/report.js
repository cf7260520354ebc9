// A report's JSON as elements: verdict, people, timelines, facts, hashes.

import { el, megabytes, seconds, svg } from "/dom.js";
import { timeline } from "/timeline.js";
import { LABELS } from "/words.js";

const MOST_CHARTS = 8; // the people who decide come first

export function reportView(job, report, links) {
  const words = LABELS[report.verdict.label];
  return [
    el(
      "div",
      { class: `verdict ${words.kind}` },
      el("p", { class: "file" }, job.name),
      el("h2", { id: "report-title" }, el("span", { class: "mark", "aria-hidden": "true" }, words.mark), words.headline),
      el("p", {}, words.means),
      el("p", {}, words.means_not),
      report.verdict.probability === null ? null : scale(report.verdict),
    ),
    el("p", { class: "actions" }, ...links),
    part("Reasons", el("ul", { class: "reasons" }, ...report.verdict.reasons.map((reason) => el("li", {}, reason)))),
    report.people.length ? part("People", people(report.people)) : null,
    report.people.length ? part("Suspicion over time", ...charts(report)) : null,
    part("File", facts(media(job, report))),
    part("How it was measured", facts(measured(report))),
    part(
      "Hashes (SHA-256)",
      facts([
        ["File", hash(report.media.sha256)],
        ["Detector", hash(report.detector.sha256)],
      ]),
    ),
  ].filter((node) => node !== null);
}

function part(title, ...content) {
  return el("section", { class: "part" }, el("h3", {}, title), ...content);
}

// Where the probability lies between 0 and 1, and where the detector's thresholds are.
function scale(verdict) {
  const { probability, thresholds } = verdict;
  const percent = (value) => `${(value * 100).toFixed(2)}%`;
  const drawing = svg(
    "svg",
    { class: "scale", width: "100%", height: 34, "aria-hidden": "true" },
    svg("rect", { class: "track", x: 0, y: 12, width: "100%", height: 10, rx: 5 }),
  );
  if (thresholds) {
    drawing.append(
      svg("rect", { class: "zone real", x: 0, y: 12, width: percent(thresholds.real), height: 10, rx: 5 }),
      svg("rect", { class: "zone fake", x: percent(thresholds.fake), y: 12, width: percent(1 - thresholds.fake), height: 10, rx: 5 }),
    );
  }
  drawing.append(svg("rect", { class: "needle", x: percent(Math.min(Math.max(probability, 0.004), 0.996)), y: 3, width: 4, height: 28, rx: 2, transform: "translate(-2 0)" }));
  const said = thresholds
    ? `Probability of fake ${probability.toFixed(2)}; real up to ${thresholds.real.toFixed(2)}, fake from ${thresholds.fake.toFixed(2)}`
    : `Probability of fake ${probability.toFixed(2)}`;
  return el("figure", {}, drawing, el("figcaption", {}, said));
}

function people(list) {
  const titles = ["Person", "Verdict", "Probability of fake", "Frames", "Face", "Seen enough"];
  const head = el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)));
  const rows = list.map((person) => {
    const words = LABELS[person.label];
    const chip = el("span", { class: `chip ${words.kind}` }, el("span", { "aria-hidden": "true" }, `${words.mark} `), words.headline);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, String(person.id)),
      el("td", {}, chip),
      el("td", { class: "number" }, person.probability.toFixed(3)),
      el("td", { class: "number" }, String(person.num_frames)),
      el("td", { class: "number" }, `${Math.round(person.face_px)} px`),
      el("td", {}, person.sufficient ? "yes" : "no"),
    );
  });
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows));
  // Scrolls sideways on a phone: by keyboard as well.
  return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "People" }, table);
}

function charts(report) {
  const shown = report.people.slice(0, MOST_CHARTS);
  const nodes = shown.map((person) =>
    el(
      "div",
      {},
      el("h4", {}, `Person ${person.id}`),
      timeline(person, report.verdict.thresholds, report.media.duration_s),
    ),
  );
  const more = report.people.length - shown.length;
  return more > 0 ? [...nodes, el("p", { class: "hint" }, `${more} more people: see the JSON report.`)] : nodes;
}

function media(job, report) {
  const facts = report.media;
  const size = facts.width === null ? "unknown" : `${facts.width} × ${facts.height}`;
  // Rounded down, so that a gap is never shown as 100%.
  const decoded =
    facts.decoded_frames === null
      ? "unknown"
      : `${facts.decoded_frames} frames, ${(Math.floor(facts.coverage * 1000) / 10).toFixed(1)}% of the file`;
  return [
    ["Name", job.name],
    ["Size", megabytes(job.size_bytes)],
    ["Container and codec", facts.container === null ? "unknown" : `${facts.container}, ${facts.codec}`],
    ["Picture", size],
    ["Duration", seconds(facts.duration_s)],
    ["Decoded", decoded],
    ["Peculiarities", facts.traits.length ? facts.traits.join(", ").replaceAll("_", " ") : "none"],
  ];
}

function measured(report) {
  return [
    ["Detector", `${report.detector.name} ${report.detector.version}`],
    ["Started", report.started],
    ["Took", seconds(report.seconds)],
    ["Software", Object.entries(report.software).map(([name, version]) => `${name} ${version}`).join(", ")],
  ];
}

function hash(value) {
  return value === null ? "unknown" : el("code", {}, value);
}

function facts(pairs) {
  const nodes = pairs.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]);
  return el("dl", {}, ...nodes);
}
