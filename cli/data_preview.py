"""`deepfake data preview`: a contact sheet, drawn and written whole."""

from __future__ import annotations

from pathlib import Path

import cv2

from forensics.datasets.preview import contact_sheet
from forensics.datasets.shard_index import write_durably
from forensics.datasets.shards import CropStore
from forensics.errors import ConfigError

from .terminal import emit

_SUFFIXES = (".png", ".jpg", ".jpeg")


def run(folder: Path, out: Path, *, size: int, seed: int) -> int:
    """Draw and write; the result is the exit status."""
    if out.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{out}: a sheet ends in {', '.join(_SUFFIXES)}")
    sheet = contact_sheet(CropStore.open(folder), size=size, seed=seed)
    encoded = cv2.imencode(out.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    write_durably(out, encoded.tobytes())
    emit(f"{out}: {sheet.shape[1]} x {sheet.shape[0]} px\n")
    return 0
