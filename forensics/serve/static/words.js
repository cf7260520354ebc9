// What labels mean in words: one title, one sentence, one shape each, never colour alone.

export const LABELS = {
  likely_fake: {
    title: "Likely fake",
    kind: "fake",
    mark: "▲",
    meaning:
      "At least one person who was seen well enough reaches the detector's threshold for fake. This is evidence, not proof: look at the seconds below, and at where the file comes from.",
  },
  likely_real: {
    title: "Likely real",
    kind: "real",
    mark: "●",
    meaning:
      "Every person who was seen well enough stays at or below the detector's threshold for real. It does not prove that the recording is genuine: a forgery of a kind the detector has never seen may pass.",
  },
  uncertain: {
    title: "Uncertain",
    kind: "uncertain",
    mark: "◆",
    meaning:
      "Faces were judged, but the probability lies between the two thresholds, or too little was seen. Take it as no answer in either direction.",
  },
  no_face: {
    title: "No face found",
    kind: "none",
    mark: "○",
    meaning: "Frames were decoded, and no face was found in those that were looked at. Nothing is said about the rest of the picture.",
  },
  undecodable: {
    title: "Cannot be decoded",
    kind: "none",
    mark: "○",
    meaning: "The file is damaged, or no picture came out of it. Nothing is said about its content.",
  },
  no_video_stream: {
    title: "No pictures inside",
    kind: "none",
    mark: "○",
    meaning: "This is a media file without pictures, such as sound alone.",
  },
  limit_exceeded: {
    title: "Over a limit",
    kind: "none",
    mark: "○",
    meaning: "The file would take more time, memory, pixels or frames than one file may. It was not judged.",
  },
  unsupported: {
    title: "Not supported",
    kind: "none",
    mark: "○",
    meaning: "This is not a kind of file that is examined.",
  },
};

const STAGES = { loading: "Loading the detector", looking: "Looking at frames", scoring: "Judging faces" };

// A job's state as one short sentence.
export function stateWords(job) {
  if (job.state === "queued") return "Waiting for its turn";
  if (job.state === "cancelling") return "Cancelling";
  if (job.state === "cancelled") return "Cancelled";
  if (job.state === "failed") return `Failed: ${job.message}`;
  if (job.state === "done") {
    const { title } = LABELS[job.label];
    return job.probability === null ? title : `${title}, probability of fake ${job.probability.toFixed(2)}`;
  }
  if (job.stage === null) return "Opening the file";
  const place = job.stage === "loading" ? "" : `: ${job.done} of ${job.total}`;
  return STAGES[job.stage] + place;
}

// Announced aloud when it changes; counts of frames are not.
export function stageWords(job) {
  if (job.state !== "running") return stateWords(job);
  return job.stage === null ? "Opening the file" : STAGES[job.stage];
}
