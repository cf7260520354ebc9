"""A verdict in words: what it means, what it does not mean, and how often its detector errs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forensics.structures import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """`headline` in a few words; `means` and `means_not`, a sentence each."""

    headline: str
    means: str
    means_not: str


_FILE_ONLY = "It says nothing about whether the people or events in the file are real."

WORDS: dict[Label, Words] = {
    "likely_fake": Words(
        headline="Likely fake",
        means="At least one face that was seen well enough looks, to this detector, like faces "
        "that were made or changed by a machine.",
        means_not="It is not proof, and it does not say who made it, how, or what for. Strong "
        "compression, beauty filters and retouching can look alike. Let a person look at the "
        "seconds and faces below before anybody acts on it.",
    ),
    "likely_real": Words(
        headline="No sign of a fake found",
        means="Every face that was seen well enough looks, to this detector, like faces that a "
        "camera recorded.",
        means_not="It is not a certificate. Forgeries of a kind this detector was not trained on "
        "pass, and nothing but faces was examined: not the sound, not the background, not whether "
        "the video shows what it is said to show.",
    ),
    "uncertain": Words(
        headline="Uncertain",
        means="Faces were judged, but the answer lies between the two thresholds, or too little "
        "was seen of anybody.",
        means_not="It is neither half a suspicion nor half an all-clear. Look closer (--fps, "
        "--start, --end), find a better copy of the file, or ask in another way.",
    ),
    "no_face": Words(
        headline="No verdict: no face",
        means="Pictures were decoded, and no face was found in those that were looked at.",
        means_not="A file without a verdict is not a file that passed. Faces may be too small, "
        "turned away, or between the moments looked at.",
    ),
    "undecodable": Words(
        headline="No verdict: cannot be decoded",
        means="The file is damaged, or no picture came out of it.",
        means_not="A file without a verdict is not a file that passed. Ask for another copy.",
    ),
    "no_video_stream": Words(
        headline="No verdict: no pictures",
        means="This is a media file without pictures, such as sound alone.",
        means_not=f"Sound is not examined. {_FILE_ONLY}",
    ),
    "limit_exceeded": Words(
        headline="No verdict: a limit was reached",
        means="The file would take more time, memory, pixels or frames than one file may.",
        means_not="A file without a verdict is not a file that passed. The reason names the limit; "
        "it can be raised, or a part of the file examined.",
    ),
    "unsupported": Words(
        headline="No verdict: not examined",
        means="This is not a kind of file that is examined, or not in this way.",
        means_not="A file without a verdict is not a file that passed.",
    ),
}


def error_rates(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences from a card's metrics, for whoever asks how often the detector errs."""
    said: list[str] = []
    alarms, reals = metrics.get("false_alarm_rate"), metrics.get("real_videos")
    if isinstance(alarms, float) and isinstance(reals, float):
        said.append(
            f"Of {reals:.0f} real videos it was measured on, it called {alarms:.0%} likely fake."
        )
    found, fakes = metrics.get("fakes_found"), metrics.get("fake_videos")
    if isinstance(found, float) and isinstance(fakes, float):
        said.append(
            f"Of {fakes:.0f} fake videos it called {found:.0%} likely fake and missed the others."
        )
    if isinstance(metrics.get("set"), str):
        said.append(f"Measured on: {metrics['set']}.")
    if not said:
        return ("Its card states no error rates: its verdicts cannot be weighed.",)
    said.append("On other cameras, compression and forgeries expect more errors than these.")
    return tuple(said)
