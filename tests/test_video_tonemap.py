"""HDR levels land where the standards put them."""

from __future__ import annotations

import numpy as np
import pytest

from forensics.video.tonemap import tone_map


def pq_signal(nits: float) -> int:
    """ST 2084's inverse, written out independently of the table under test."""
    y = (nits / 10000) ** (2610 / 16384)
    return round(65535 * ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32))


def grey(signal: int) -> int:
    picture = np.full((4, 4, 3), signal, np.uint16)
    return int(tone_map(picture, "pq", wide=True)[0, 0, 1])


@pytest.mark.parametrize(("nits", "level"), [(0.0, 0), (203.0, 192), (1000.0, 255), (4000.0, 255)])
def test_pq_light_lands_on_its_level(nits: float, level: int) -> None:
    assert grey(pq_signal(nits)) == pytest.approx(level, abs=3)


@pytest.mark.parametrize("curve", ["pq", "hlg"])
def test_brighter_stays_brighter_and_grey_stays_grey(curve: str) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None], 3, axis=2)
    mapped = tone_map(ramp, curve, wide=True).astype(int)  # type: ignore[arg-type]
    assert (np.diff(mapped[0, :, 1]) >= 0).all()
    assert (mapped[0, -1] >= 250).all()
    assert np.ptp(mapped, axis=2).max() <= 1


def test_hlg_reference_white_is_bright_but_not_clipped() -> None:
    white = np.full((2, 2, 3), round(0.75 * 65535), np.uint16)  # BT.2408: 75% HLG is white
    assert 180 <= tone_map(white, "hlg")[0, 0, 0] <= 205
