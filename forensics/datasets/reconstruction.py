"""Fakes drawn again by an autoencoder: a whole picture, or a face blended into its own original.

For what shows no blending: wholly generated heads, and regions that a network has rendered. Both
halves of a pair come from one picture, so that its source tells nothing. Everything but the
networks is drawn from one generator: the same seed gives the same pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from forensics.datasets.hulls import hull_mask
from forensics.datasets.self_blend import Image, change, elastic, small_affine, soften
from forensics.errors import TrainingError
from forensics.models.autoencoder import PLANS, Autoencoder

_MULTIPLE = 8  # of which height and width are, for every autoencoder
SMALLEST = 0.33  # of a picture's side, before it is drawn again: generators work at 64 to 512 px
_MODES = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)

# Shares of the pairs: of those whose halves are both changed in colour and sharpness, smaller while
# they are drawn, drawn twice, with the real half as small, whole pictures, moved a little.
_CHANGED, _SMALLER, _TWICE, _REAL_SMALLER, _WHOLE, _MOVED = 0.25, 0.8, 0.15, 0.6, 0.4, 0.5


class Autoencoders(NamedTuple):
    """Networks to draw pictures again with; in bfloat16 arithmetic or not."""

    networks: tuple[Autoencoder, ...]
    bf16: bool

    def draw(self, image: Image, rng: np.random.Generator) -> Image:
        """(H, W, 3) uint8 RGB -> the same by one of the networks."""
        height, width = image.shape[:2]
        network = self.networks[int(rng.integers(len(self.networks)))]
        x = torch.from_numpy(np.ascontiguousarray(image))  # pyright: ignore[reportUnknownMemberType]
        x = x.permute(2, 0, 1)[None].float() / 127.5 - 1
        padding = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        x = F.pad(x, padding, mode="replicate").contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            y = network(x).float()
        y = ((y[0, :, :height, :width] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(y.permute(1, 2, 0).numpy())


def read_autoencoders(folder: Path, *, bf16: bool) -> Autoencoders:
    """Those that a run has learned into `folder`. Raises TrainingError where one is missing or
    damaged."""
    networks: list[Autoencoder] = []
    for name, plan in PLANS.items():
        path = folder / f"{name}.safetensors"
        network = Autoencoder(plan)
        try:
            network.load_state_dict(load_file(str(path)))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(
                f"{path}: no autoencoder: {reason}; remove it and go on with --resume"
            ) from error
        networks.append(network.eval().to(memory_format=torch.channels_last))  # pyright: ignore
    return Autoencoders(tuple(networks), bf16)


def reconstruct(
    image: Image,
    landmarks: NDArray[np.float32],
    autoencoders: Autoencoders,
    rng: np.random.Generator,
) -> tuple[Image, Image]:
    """(real, fake), both (H, W, 3) uint8, from a real crop and its landmarks (5, 2) in pixels.

    Mostly the picture is made smaller first and both halves with it, so that size and sharpness
    tell little. Raises ValueError for unknown landmarks.
    """
    height, width = image.shape[:2]
    real = change(image, rng) if rng.random() < _CHANGED else image
    scale = rng.uniform(SMALLEST, 1) if rng.random() < _SMALLER else 1.0
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = np.asarray(cv2.resize(real, size, interpolation=cv2.INTER_AREA), np.uint8)
    drawn = autoencoders.draw(small, rng)
    if rng.random() < _TWICE:
        drawn = autoencoders.draw(drawn, rng)
    mode = int(rng.choice(_MODES))
    drawn = np.asarray(cv2.resize(drawn, (width, height), interpolation=mode), np.uint8)
    if rng.random() < _REAL_SMALLER:
        real = np.asarray(cv2.resize(small, (width, height), interpolation=mode), np.uint8)
    mask = hull_mask((height, width), landmarks, rng)  # refuses unknown landmarks for all alike
    if rng.random() < _WHOLE:
        return real, drawn
    if rng.random() < _MOVED:
        warp = small_affine(height, width, rng)
        drawn = cv2.warpAffine(drawn, warp, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        mask = np.asarray(cv2.warpAffine(mask, warp, (width, height)), dtype=np.float32)
    mask = soften(elastic(mask, rng), rng)
    return real, np.asarray(cv2.blendLinear(drawn, real, mask, 1 - mask), dtype=np.uint8)
