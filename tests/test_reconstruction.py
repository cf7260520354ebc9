"""Fakes drawn again by autoencoders, and the autoencoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from makers_training import LANDMARKS
from numpy.typing import NDArray
from safetensors.torch import save_file

from forensics.datasets import reconstruction as module
from forensics.datasets.reconstruction import Autoencoders, read_autoencoders, reconstruct
from forensics.errors import TrainingError
from forensics.models.autoencoder import PLANS, Autoencoder, Critic

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def untrained() -> Autoencoders:
    torch.manual_seed(0)
    return Autoencoders(tuple(Autoencoder(plan).eval() for plan in PLANS.values()), bf16=False)


def picture(height: int = 64, width: int = 64) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", PLANS)
def test_an_autoencoder_answers_with_a_picture_of_the_same_size(name: str) -> None:
    network = Autoencoder(PLANS[name]).eval()
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.inference_mode():
        once, twice = network(x), network(x)
        assert once.shape == x.shape
        assert torch.equal(once, twice)  # noise is for learning alone
        assert not torch.equal(network.train()(x), once)
    assert Critic()(x).shape == (2, 1, 8, 12)


@pytest.mark.parametrize("name", PLANS)
def test_even_colour_goes_round_the_encoder(name: str) -> None:
    network = Autoencoder(PLANS[name]).eval()
    torch.nn.init.zeros_(network.decoder[-1].weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(network.decoder[-1].bias)  # type: ignore[arg-type]
    x = torch.full((1, 3, 16, 16), 0.25)
    assert torch.allclose(network(x), x)


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (9, 200)])
def test_pictures_of_every_size_are_drawn(untrained: Autoencoders, size: tuple[int, int]) -> None:
    drawn = untrained.draw(picture(*size), np.random.default_rng(0))
    assert drawn.shape == (*size, 3)
    assert drawn.dtype == np.uint8


def test_a_fake_is_whole_or_within_the_face_and_its_real_the_picture_itself(
    untrained: Autoencoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CHANGED", "_SMALLER", "_TWICE", "_REAL_SMALLER"):
        monkeypatch.setattr(module, name, 0.0)
    for share, at_the_edge in ((1.0, True), (0.0, False)):
        monkeypatch.setattr(module, "_WHOLE", share)
        for seed in range(10):
            real, fake = reconstruct(picture(), LANDMARKS, untrained, np.random.default_rng(seed))
            assert np.array_equal(real, picture())
            differs = np.abs(real.astype(int) - fake).max(axis=2) > 0
            assert differs.mean() > 0.02  # a mouth is small
            assert (differs[:2].mean() > 0.9) == at_the_edge


def test_the_real_half_is_made_as_small_as_the_fake_where_it_is_to_be(
    untrained: Autoencoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or sharpness would tell."""

    def sharpness(image: Image) -> float:
        return float(np.abs(np.diff(image.astype(int), axis=1)).mean())

    monkeypatch.setattr(module, "_SMALLER", 1.0)
    monkeypatch.setattr(module, "_CHANGED", 0.0)
    monkeypatch.setattr(module, "_REAL_SMALLER", 1.0)
    pairs = [
        reconstruct(picture(), LANDMARKS, untrained, np.random.default_rng(seed))
        for seed in range(10)
    ]
    assert all(sharpness(real) < sharpness(picture()) for real, _ in pairs)


def test_one_generator_decides_everything(untrained: Autoencoders) -> None:
    def pair(seed: int) -> list[bytes]:
        made = reconstruct(picture(), LANDMARKS, untrained, np.random.default_rng(seed))
        return [half.tobytes() for half in made]

    state = torch.get_rng_state()
    pairs = [pair(seed) for seed in range(6)]
    assert pairs == [pair(seed) for seed in range(6)]
    assert len({fake for _, fake in pairs}) == 6
    assert torch.equal(state, torch.get_rng_state())


def test_unknown_landmarks_are_refused(untrained: Autoencoders) -> None:
    for seed in range(8):  # whole pictures, too
        with pytest.raises(ValueError, match="landmarks"):
            reconstruct(
                picture(),
                np.full((5, 2), np.nan, np.float32),
                untrained,
                np.random.default_rng(seed),
            )


def test_what_is_no_autoencoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nearest\.safetensors: no autoencoder"):
        read_autoencoders(tmp_path, bf16=False)
    for name, plan in PLANS.items():
        save_file(Autoencoder(plan).state_dict(), tmp_path / f"{name}.safetensors")
    assert len(read_autoencoders(tmp_path, bf16=False).networks) == len(PLANS)
    (tmp_path / "shuffle.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"shuffle\.safetensors: no autoencoder.*remove it"):
        read_autoencoders(tmp_path, bf16=False)
    save_file({"other": torch.zeros(1)}, tmp_path / "shuffle.safetensors")
    with pytest.raises(TrainingError, match=r"shuffle\.safetensors: no autoencoder"):
        read_autoencoders(tmp_path, bf16=False)
