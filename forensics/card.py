"""What a checkpoint says of itself: the card, checked at birth, and its JSON form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from pydantic import ConfigDict

from forensics.calibration import Calibration
from forensics.config import load_config
from forensics.errors import CheckpointError, ConfigError
from forensics.preprocess import Preprocessing
from forensics.structures import Thresholds
from forensics.verdict import EvidenceRules

# The one meaning of a label in this project; a card repeats it for readers of the file.
LABELS: dict[str, str] = {"0": "real", "1": "fake"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a checkpoint says of itself. `weights_sha256` is filled in by `save_checkpoint`.

    Raises ValueError where the labels are not `LABELS`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: Literal["deepfake-checkpoint/1"] = "deepfake-checkpoint/1"
    name: str
    version: str
    model: str  # a key of forensics.models.MODELS
    options: Mapping[str, Any]  # the constructor's words
    preprocessing: Preprocessing
    labels: Mapping[str, str] = field(default_factory=lambda: dict(LABELS))
    aggregation: Literal["mean"] = "mean"  # of the frames' logits, over a track
    calibration: Calibration  # of the aggregated logit; a frame's probability uses the same map
    thresholds: Thresholds
    evidence: EvidenceRules  # when a face is sufficiently seen
    training_data: str  # which material, in words
    manifest_sha256: str  # of the manifest it was trained from
    training_manifest: str = ""  # that manifest's file name, where it lies beside the checkpoint
    metrics: Mapping[str, float | tuple[float, ...] | str]  # measured on held-out data
    licence: str  # of the weights
    # Whether bfloat16 was seen to move no probability by 0.01; without that, float32 everywhere.
    bfloat16: bool = False
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        if dict(self.labels) != LABELS:
            raise ValueError(f"labels must be {LABELS}: 1 is fake everywhere in this project")


def card_json(card: Card, source: str) -> str:
    """The card as JSON, keys sorted: equal cards give equal text.

    Raises CheckpointError, which begins with `source`, where it holds what JSON cannot.
    """
    try:
        return json.dumps(asdict(card), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: the card cannot be written as JSON: {error}") from error


def parse_card(text: str, source: str) -> Card:
    """The card of a JSON text; CheckpointError, which begins with `source`, where it is none.

    Refused are unknown and missing entries, wrong types and numbers that are not finite.
    """
    try:
        mapping: object = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: the card is not valid JSON: {error}") from error
    if not isinstance(mapping, dict):
        raise CheckpointError(f"{source}: the card must be a JSON object")
    try:
        return load_config(Card, cast("dict[str, Any]", mapping), f"{source}: card")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _finite(text: str) -> float:
    # JSON knows neither NaN nor Infinity, Python's parser does; 1e999 is JSON, and infinite.
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value
