// The page: what was submitted, how far it is, and the report that is open.

import { el, megabytes, setText } from "/dom.js";
import { reportView } from "/report.js";
import { uploader } from "/uploads.js";
import { LABELS, learn, stageWords, stateWords } from "/words.js";

const BUSY_MS = 400;
const IDLE_MS = 3000;
const ENDED = ["done", "failed", "cancelled"];

const byId = (id) => document.getElementById(id);
const rows = new Map(); // job id or upload -> row
let known = { server: null, revision: 0 };
let mostBytes = null;
let open = null; // id of the job whose report is shown
let awaited = null; // the file submitted last, whose report opens by itself; so does the first of many
const ours = new Set(); // ids of what was submitted here
let timer = null;

const sender = uploader((upload) => {
  const row = rows.get(upload) ?? addRow(upload);
  if (upload.state === "arrived") {
    rows.delete(upload);
    rows.set(upload.job.id, row);
    ours.add(upload.job.id);
    if (awaited === upload) awaited = upload.job.id;
    showJob(upload.job);
    schedule(0);
  } else {
    showUpload(row, upload);
  }
});

// --- Rows -----------------------------------------------------------------------------------

function addRow(key) {
  const row = {
    name: el("span", { class: "name" }),
    size: el("span", { class: "size" }),
    chip: el("span", { class: "chip", hidden: true }),
    state: el("p", { class: "state" }),
    bar: el("progress", { hidden: true }),
    cancel: el("button", { type: "button", class: "quiet" }, "Cancel"),
    show: el("button", { type: "button", hidden: true }, "Report"),
    said: null,
  };
  row.item = el(
    "li",
    {},
    el("div", { class: "head" }, row.name, row.size),
    row.bar,
    el("div", { class: "foot" }, row.chip, row.state, row.show, row.cancel),
  );
  rows.set(key, row);
  byId("jobs").prepend(row.item);
  byId("empty").hidden = true;
  return row;
}

function nameRow(row, name, bytes) {
  setText(row.name, name);
  setText(row.size, megabytes(bytes));
  row.bar.setAttribute("aria-label", `Progress of ${name}`);
  row.cancel.setAttribute("aria-label", `Cancel ${name}`);
  row.show.setAttribute("aria-label", `Show report of ${name}`);
}

function say(row, name, words) {
  if (row.said === words) return;
  row.said = words;
  const line = el("p", {}, `${name}: ${words}`);
  byId("announcer").append(line);
  setTimeout(() => line.remove(), 10_000); // long read by then
}

function showBar(row, done, total) {
  row.bar.hidden = false;
  if (total > 0) {
    row.bar.max = total;
    row.bar.value = done;
  } else {
    row.bar.removeAttribute("value");
  }
}

// A button that vanishes under the focus hands it on instead of losing it.
function hide(button, heir) {
  const focused = document.activeElement === button;
  button.hidden = true;
  if (focused) (heir.hidden ? byId("files-title") : heir).focus();
}

function showUpload(row, upload) {
  nameRow(row, upload.name, upload.size);
  row.cancel.onclick = () => sender.cancel(upload);
  const percent = upload.size ? Math.floor((upload.sent / upload.size) * 100) : 0;
  const words = {
    waiting: "Waiting for a place",
    sending: "Uploading",
    refused: `Not taken: ${upload.message}`,
    cancelled: "Cancelled",
  }[upload.state];
  setText(row.state, upload.state === "sending" ? `${words}: ${percent}%` : words);
  say(row, upload.name, words);
  row.item.className = upload.state === "refused" ? "problem" : "";
  if (upload.state === "sending") showBar(row, upload.sent, upload.size);
  else row.bar.hidden = true;
  if (["refused", "cancelled"].includes(upload.state)) hide(row.cancel, row.show);
}

function showJob(job) {
  const row = rows.get(job.id) ?? addRow(job.id);
  if (row.job && row.job.revision > job.revision) return; // answers may overtake each other
  row.job = job;
  nameRow(row, job.name, job.size_bytes);
  row.cancel.onclick = () => cancel(job.id);
  row.show.onclick = () => showReport(job.id, true);
  const ended = ENDED.includes(job.state);
  setText(row.state, job.state === "done" ? "" : stateWords(job));
  say(row, job.name, stageWords(job));
  row.item.className = job.state === "failed" ? "problem" : "";
  if (job.state === "done") {
    const words = LABELS[job.label];
    const probability = job.probability === null ? "" : ` · ${job.probability.toFixed(2)}`;
    row.chip.className = `chip ${words.kind}`;
    row.chip.replaceChildren(el("span", { "aria-hidden": "true" }, `${words.mark} `), words.headline + probability);
    row.chip.hidden = false;
    row.show.hidden = false;
  }
  if (ended) row.bar.hidden = true;
  else if (job.state === "running") showBar(row, job.done, job.total);
  else showBar(row, 0, job.state === "queued" ? 1 : 0);
  if (ended) hide(row.cancel, row.show);
  // Not `disabled`: that would take the focus away.
  else row.cancel.setAttribute("aria-disabled", String(job.state === "cancelling"));
  if (job.state === "done" && (awaited === job.id || (open === null && ours.has(job.id)))) showReport(job.id, false);
}

// --- The report -----------------------------------------------------------------------------

async function showReport(id, focus) {
  const { job } = rows.get(id);
  if (awaited === id || focus) awaited = null;
  open = id;
  const address = `/api/jobs/${id}/report`;
  const answer = await fetch(`${address}.json`).catch(lost);
  if (!answer) return;
  const section = byId("report");
  if (!answer.ok) {
    section.replaceChildren(el("h2", { id: "report-title" }, "Report"), el("p", {}, `${job.name}: the report is gone.`));
    return;
  }
  const links = [
    el("a", { class: "button strong", href: `${address}.html`, target: "_blank", rel: "noopener" }, "Open full report"),
    el("a", { class: "button", href: `${address}.html`, download: `${job.name}.html` }, "Download HTML"),
    el("a", { class: "button", href: `${address}.json`, download: `${job.name}.json` }, "Download JSON"),
  ];
  section.replaceChildren(...reportView(job, await answer.json(), links));
  for (const [key, row] of rows) row.show.setAttribute("aria-current", String(key === open));
  if (focus) {
    section.focus({ preventScroll: true });
    section.scrollIntoView({ block: "start" });
  }
}

async function cancel(id) {
  const answer = await fetch(`/api/jobs/${id}`, { method: "DELETE" }).catch(lost);
  if (answer?.ok) showJob(await answer.json());
}

// --- The server -----------------------------------------------------------------------------

function schedule(delay) {
  clearTimeout(timer);
  timer = setTimeout(poll, delay);
}

async function poll() {
  try {
    const answer = await fetch(`/api/jobs?since=${known.revision}`);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const list = await answer.json();
    byId("lost").hidden = true;
    if (known.server !== null && list.server !== known.server) {
      location.reload(); // another server: what is shown here it has never heard of
      return;
    }
    // A poll may be faster than the answer to the upload that it tells about.
    const early = (job) => !rows.has(job.id) && sender.current()?.size === job.size_bytes;
    known = { server: list.server, revision: list.jobs.some(early) ? known.revision : list.revision };
    for (const job of list.jobs.reverse()) if (!early(job)) showJob(job);
    sender.offer(list.free_places);
  } catch {
    lost();
  }
  const busy = [...rows.values()].some((row) => row.job && !ENDED.includes(row.job.state));
  schedule(busy && !document.hidden ? BUSY_MS : IDLE_MS);
}

function lost() {
  setText(byId("lost"), "The server does not answer. If it was stopped, its files and reports are gone.");
  byId("lost").hidden = false;
}

async function start() {
  try {
    const { detector, version, max_upload_bytes: most, labels } = await (await fetch("/api/server")).json();
    learn(labels);
    mostBytes = most;
    setText(byId("server"), `deepfake ${version} · detector ${detector.name} ${detector.version}`);
    setText(byId("limits"), `${byId("limits").textContent} Up to ${Number((most / 2 ** 20).toFixed(1))} MB each.`);
    poll();
  } catch {
    lost();
    setTimeout(start, IDLE_MS);
  }
}

// --- Choosing and dropping ------------------------------------------------------------------

function submit(files) {
  for (const file of files) {
    const upload = sender.add(file, mostBytes);
    if (upload.state !== "refused") awaited = upload.job?.id ?? upload;
  }
}

byId("file").addEventListener("change", (event) => {
  submit(event.target.files);
  event.target.value = ""; // the same file may be chosen again
});

const drop = byId("drop");
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault(); // anywhere on the page: else the browser would leave it for the file
  drop.classList.remove("over");
  submit(event.dataTransfer.files);
});

start();
