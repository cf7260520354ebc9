"""Weights that others publish -> a checkpoint of this project: names, shapes and pixels translated.

A published backbone knows nothing of forgeries: its classifier, which names the things of
ImageNet, is replaced by one that always answers 0, so that a scan with it ends as `uncertain`
until it has been trained. The public weights of Coccomini et al. keep theirs.

`weight_files` reads what others publish, `weight_names` translates its names. A scan never comes
here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forensics.calibration import Platt
from forensics.card import Card
from forensics.errors import CheckpointError, ConfigError
from forensics.models import MODELS, build
from forensics.models.catalogue import ORIGINS
from forensics.models.cmt import resize_bias
from forensics.preprocess import Preprocessing
from forensics.structures import Thresholds
from forensics.verdict import EvidenceRules
from forensics.weight_files import read_source
from forensics.weight_names import TRANSLATIONS, Tensors, is_transformers_vit

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # timm's ViT weights
_TRANSFORMERS_EPS = 1e-12  # of its layer norms, in every ViT that transformers publishes
# The share from which on the authors call a face fake.
_THRESHOLDS = {"PublishedEfficientViT": 0.55, "PublishedCrossEfficientViT": 0.6}
_HEADS = {"EfficientNetClassifier": "net._fc"}  # elsewhere "head"


def convert(source: str, model: str, *, image_size: int | None = None) -> tuple[nn.Module, Card]:
    """The network `model` with the weights of `source`, and a card that says what they are.

    `source` is a file (.safetensors, or a torch file), `timm:NAME` or `hf:OWNER/NAME`; the last two
    fetch it over the network. `image_size` resizes tables of positions; None keeps the model's own.
    Raises CheckpointError naming every missing, unexpected or misshapen entry, and ConfigError for
    a model that is unknown or a library that is missing.
    """
    if model not in MODELS:
        raise ConfigError(f"model {model!r} is unknown; `deepfake models` lists them")
    family = MODELS[model][0].__name__
    if family not in TRANSLATIONS:
        known = sorted(n for n, (kind, _) in MODELS.items() if kind.__name__ in TRANSLATIONS)
        raise ConfigError(f"nobody publishes weights for {model!r}; known: {', '.join(known)}")
    published = read_source(source)
    words: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    if family == "ViT" and is_transformers_vit(published.tensors):
        words["norm_eps"] = _TRANSFORMERS_EPS if published.norm_eps is None else published.norm_eps
    network = build(model, words)
    size = cast(int, network.image_size)
    tensors = _resized(TRANSLATIONS[family](published.tensors), network, family, size)
    kept_head = _fit_head(tensors, network, _HEADS.get(family, "head"), family)
    _load(network, tensors, source)
    card = _card(model, family, words, size, kept_head=kept_head)
    if published.mean is not None and published.std is not None and family not in _THRESHOLDS:
        pixels = replace(card.preprocessing, mean=published.mean, std=published.std)
        card = replace(card, preprocessing=pixels)
    return network.eval(), card


def _resized(tensors: Tensors, network: nn.Module, family: str, size: int) -> Tensors:
    """Tables of positions fitted to the network's input size."""
    if family in ("ViT", "ConViT") and "pos_embed" in tensors:
        wanted = network.get_parameter("pos_embed").shape[1]
        first = 1 if family == "ViT" else 0  # the class token's own row
        tensors = tensors | {"pos_embed": _resize_grid(tensors["pos_embed"], wanted, first)}
    if family == "CMT":
        with suppress(KeyError, IndexError, RuntimeError):  # misshapen: named when it is loaded
            tensors = resize_bias(tensors, size)
    return tensors


def _resize_grid(table: Tensor, wanted: int, first: int) -> Tensor:
    """(1, `first` + G * G, D) -> (1, `wanted`, D), bicubically over the grid."""
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[1] == wanted:
        return table
    old, new = (round((n - first) ** 0.5) for n in (table.shape[1], wanted))
    if old * old != table.shape[1] - first:
        return table  # not a grid: refused by name when it is loaded
    grid = table[:, first:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :first], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _fit_head(tensors: Tensors, network: nn.Module, head: str, family: str) -> bool:
    """Replace a classifier of things by one that answers 0; whether the file's own was kept."""
    if family in _THRESHOLDS:
        return True
    own = {k: v for k, v in network.state_dict().items() if k.startswith(f"{head}.")}
    if all(name in tensors and tensors[name].shape == v.shape for name, v in own.items()):
        return True
    tensors.update({name: torch.zeros_like(value) for name, value in own.items()})
    return False


def _load(network: nn.Module, tensors: Tensors, source: str) -> None:
    own = network.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        raise CheckpointError(
            f"{source}: does not fit, {len(problems)} problems: {'; '.join(problems)}"
        )
    network.load_state_dict(tensors)


def _card(model: str, family: str, words: dict[str, Any], size: int, *, kept_head: bool) -> Card:
    origin = ORIGINS[family]
    published = _THRESHOLDS.get(family)
    if published is not None:
        # Their pixels: as OpenCV reads them, unscaled, cut at the box itself.
        preprocessing = Preprocessing(
            size=size,
            margin=1.0,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            colour_order="bgr",
            scale=1.0,
        )
        thresholds = Thresholds(real=published, fake=published)
        data = "As published: FaceForensics++ and DFDC. The probability is not calibrated."
    else:
        mean, std = _HALVES if family == "ViT" else _IMAGENET
        preprocessing = Preprocessing(size=size, margin=1.3, mean=mean, std=std)
        thresholds = Thresholds(real=0.0, fake=1.0)
        data = "Not trained on forgeries: an imported backbone"
        data += "." if kept_head else ", whose classifier answers 0 until it is trained."
    return Card(
        name=model,
        version="imported",
        model=model,
        options=words,
        preprocessing=preprocessing,
        calibration=Platt(scale=1.0, offset=0.0),
        thresholds=thresholds,
        evidence=EvidenceRules(min_frames=4, min_face_px=32),
        training_data=data,
        manifest_sha256="",
        metrics={},
        licence=f"{origin.licence}, as stated for {origin.weights}",
    )
