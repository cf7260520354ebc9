// Labels, states and stages in words; one shape for each kind of label, never colour alone.

const KINDS = {
  likely_fake: { kind: "fake", mark: "▲" },
  likely_real: { kind: "real", mark: "●" },
  uncertain: { kind: "uncertain", mark: "◆" },
};
const ABSTAINED = { kind: "none", mark: "○" };
const STAGES = {
  loading: "Loading the detector",
  looking: "Looking at frames",
  scoring: "Judging faces",
  explaining: "Writing the report",
};

export const LABELS = {};

// The server says what labels mean, in the words of its reports.
export function learn(labels) {
  for (const [label, words] of Object.entries(labels)) {
    LABELS[label] = { ...words, ...(KINDS[label] ?? ABSTAINED) };
  }
}

// A job's state as one short sentence.
export function stateWords(job) {
  if (job.state === "queued") return "Waiting for its turn";
  if (job.state === "cancelling") return "Cancelling";
  if (job.state === "cancelled") return "Cancelled";
  if (job.state === "failed") return `Failed: ${job.message}`;
  if (job.state === "done") {
    const { headline } = LABELS[job.label];
    return job.probability === null ? headline : `${headline}, probability of fake ${job.probability.toFixed(2)}`;
  }
  const counted = ["looking", "scoring"].includes(job.stage);
  return stageWords(job) + (counted ? `: ${job.done} of ${job.total}` : "");
}

// Announced aloud when it changes; counts of frames are not.
export function stageWords(job) {
  if (job.state !== "running") return stateWords(job);
  return job.stage === null ? "Opening the file" : STAGES[job.stage];
}
