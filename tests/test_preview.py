"""The contact sheet: what is on it, and that it can be repeated."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
from makers_crops import BOX, crop_picture, write_store
from typer.testing import CliRunner

from forensics.datasets.augment import face_cut
from forensics.datasets.preview import COLUMNS, VERSIONS, contact_sheet
from forensics.datasets.shards import CropStore

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CropStore:
    return CropStore.open(write_store(tmp_path_factory.mktemp("preview") / "crops"))


def test_the_sheet_shows_crops_as_scanned_above_their_versions(store: CropStore) -> None:
    sheet = contact_sheet(store, size=48, seed=1)
    tile = 48 + 16 + 4, 48 + 4
    assert sheet.shape == ((1 + VERSIONS + 2) * tile[0], COLUMNS * tile[1], 3)
    cuts = [face_cut(crop_picture(100 * r + n), BOX, 1.3, 48) for r in range(8) for n in range(3)]
    for column in range(COLUMNS):
        shown = sheet[18 : 18 + 48, column * tile[1] + 2 :][:, :48]
        assert any(np.array_equal(shown, cut) for cut in cuts)
        below = sheet[tile[0] + 18 : tile[0] + 18 + 48, column * tile[1] + 2 :][:, :48]
        assert not np.array_equal(below, shown)
        # Green above reals and red above fakes, in turn.
        red, green, _ = sheet[2, column * tile[1] + tile[1] - 2].astype(int)
        assert (red > green) == bool(column % 2)


def test_a_sheet_follows_from_its_seed(store: CropStore) -> None:
    first, again, other = (contact_sheet(store, size=32, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def preview(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["data", "preview", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_preview_writes_the_sheet(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "crops")
    out = tmp_path / "sheet.png"
    code, text, err = preview(folder, "--out", out, "--size", 32)
    assert (code, err) == (0, "")
    written = cv2.imread(str(out))
    assert text == f"{out}: {written.shape[1]} x {written.shape[0]} px\n"
    expected = contact_sheet(CropStore.open(folder), size=32)
    assert np.array_equal(written[:, :, ::-1], expected)


def test_what_cannot_be_previewed_is_one_line(tmp_path: Path) -> None:
    code, out, err = preview(tmp_path, "--out", tmp_path / "s.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no finished extraction here" in err
    code, _, err = preview(write_store(tmp_path / "crops"), "--out", tmp_path / "s.txt")
    assert code == 2
    assert "a sheet ends in .png" in err
    assert preview("--help")[1].count("deepfake data preview") >= 1
