"""`deepfake serve`: settings in, the page's address out, and a quiet end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from forensics.config import ScanConfig, ServeConfig, load_config
from forensics.errors import ConfigError

from .terminal import emit


def run(settings: Mapping[str, Any], *, detector: str, device: str | None) -> int:
    """Serve until the user ends it: that is success here, not an interruption."""
    config = load_config(ServeConfig, settings, "command line")
    scan = load_config(ScanConfig, {"device": device} if device else {}, "command line")
    try:
        from forensics.serve.server import run as serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed: pip install 'deepfake[serve]' brings it"
        ) from error
    with suppress(KeyboardInterrupt):
        serve(config, detector=detector, scan_config=scan, on_ready=_ready)
    return 0


def _ready(address: str) -> None:
    emit(f"{address}\n")
    print("Ctrl-C ends the server and removes its files and reports.", file=sys.stderr)
