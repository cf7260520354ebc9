// One person's probability of fake over the seconds, as SVG: pointer and arrow keys read it out.

import { el, setText, svg } from "/dom.js";

const HEIGHT = 168;
const MARGIN = { top: 10, right: 14, bottom: 26, left: 40 };

export function timeline(person, thresholds, duration) {
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const chart = el("div", {
    class: "chart",
    tabindex: 0,
    role: "group",
    "aria-roledescription": "chart",
    "aria-label": summary(person),
  });
  const state = { at: null };
  const draw = () => chart.replaceChildren(picture(person, thresholds, duration, chart.clientWidth || 640, state.at));
  const select = (index) => {
    state.at = index;
    setText(readout, index === null ? hint(person) : said(person.frames[index]));
    draw();
  };
  chart.addEventListener("keydown", (event) => {
    const last = person.frames.length - 1;
    const at = state.at ?? -1;
    const next = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    select(next);
  });
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const { x } = scales(person, duration, box.width);
    const offset = event.clientX - box.left;
    let nearest = 0;
    person.frames.forEach((frame, index) => {
      if (Math.abs(x(frame.time_s) - offset) < Math.abs(x(person.frames[nearest].time_s) - offset)) nearest = index;
    });
    if (nearest !== state.at) select(nearest);
  });
  new ResizeObserver(draw).observe(chart);
  setText(readout, hint(person));
  return el("div", { class: "timeline" }, chart, readout, values(person));
}

function scales(person, duration, width) {
  const last = person.frames[person.frames.length - 1].time_s;
  const first = Math.min(0, person.frames[0].time_s);
  const end = Math.max(duration ?? 0, last, first + 0.1);
  return {
    first,
    end,
    x: (time) => MARGIN.left + ((time - first) / (end - first)) * (width - MARGIN.left - MARGIN.right),
    y: (probability) => HEIGHT - MARGIN.bottom - probability * (HEIGHT - MARGIN.top - MARGIN.bottom),
  };
}

function picture(person, thresholds, duration, width, at) {
  const { first, end, x, y } = scales(person, duration, width);
  const left = MARGIN.left;
  const right = width - MARGIN.right;
  const root = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
  if (thresholds) {
    root.append(
      svg("rect", { class: "zone fake", x: left, y: y(1), width: right - left, height: y(thresholds.fake) - y(1) }),
      svg("rect", { class: "zone real", x: left, y: y(thresholds.real), width: right - left, height: y(0) - y(thresholds.real) }),
    );
  }
  for (const tick of [0, 0.5, 1]) {
    root.append(
      svg("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(1)),
    );
  }
  const step = niceStep((end - first) / Math.max(2, Math.floor(width / 90)));
  for (let time = Math.ceil(first / step) * step; time <= end + 1e-9; time += step) {
    const label = `${Number(time.toFixed(3))} s`;
    const anchor = x(time) > right - 20 ? "end" : "middle";
    root.append(svg("text", { class: "tick", x: x(time), y: HEIGHT - 8, "text-anchor": anchor }, label));
  }
  const points = person.frames.map((frame) => `${x(frame.time_s).toFixed(1)},${y(frame.probability).toFixed(1)}`);
  root.append(svg("polyline", { class: "line", points: points.join(" ") }));
  const radius = person.frames.length > 200 ? 1.5 : 3;
  person.frames.forEach((frame, index) => {
    const kind = thresholds && frame.probability >= thresholds.fake ? "dot high" : "dot";
    const size = index === at ? 6 : radius;
    root.append(svg("circle", { class: kind, cx: x(frame.time_s), cy: y(frame.probability), r: size }));
  });
  if (at !== null) {
    const place = x(person.frames[at].time_s);
    root.append(svg("line", { class: "cursor", x1: place, x2: place, y1: y(1), y2: y(0) }));
  }
  return root;
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

function peak(person) {
  return person.frames.reduce((most, frame) => (frame.probability > most.probability ? frame : most));
}

function summary(person) {
  const most = peak(person);
  return `Person ${person.id}: probability of fake over time, ${person.frames.length} frames, highest ${most.probability.toFixed(2)} at ${most.time_s.toFixed(2)} seconds. Arrow keys step through the frames.`;
}

function hint(person) {
  const most = peak(person);
  return `Highest: ${most.probability.toFixed(2)} at ${most.time_s.toFixed(2)} s. Point at the chart, or step with the arrow keys.`;
}

function said(frame) {
  return `At ${frame.time_s.toFixed(2)} s: probability of fake ${frame.probability.toFixed(2)}.`;
}

function values(person) {
  const rows = person.frames.map((frame) =>
    el("tr", {}, el("td", {}, frame.time_s.toFixed(2)), el("td", {}, frame.probability.toFixed(3))),
  );
  const head = el("tr", {}, el("th", { scope: "col" }, "Time in s"), el("th", { scope: "col" }, "Probability of fake"));
  return el(
    "details",
    {},
    el("summary", {}, "As a table"),
    el("table", { class: "values" }, el("thead", {}, head), el("tbody", {}, ...rows)),
  );
}
