"""Weights that others publish -> a checkpoint of this project: names, shapes and pixels translated.

A published backbone knows nothing of forgeries: its classifier, which names the things of
ImageNet, is replaced by one that always answers 0, so that a scan with it ends as `uncertain`
until it has been trained. The public weights of Coccomini et al. keep theirs.

Torch files are read with torch's restricted unpickler, `weights_only=True`, and nothing else: a
file that needs more is refused. A scan never comes here.
"""

from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn
from torch.nn import functional as F

from forensics.calibration import Platt
from forensics.checkpoint import Card
from forensics.errors import CheckpointError, ConfigError
from forensics.models import MODELS, build
from forensics.models.catalogue import ORIGINS
from forensics.models.cmt import resize_bias
from forensics.preprocess import Preprocessing
from forensics.structures import Thresholds
from forensics.verdict import EvidenceRules

Tensors = dict[str, Tensor]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # timm's ViT weights
# Where training scripts put the weights; the averaged ones first.
_WRAPPERS = ("model_ema", "model", "state_dict")
# The share from which on the authors call a face fake.
_PUBLISHED_THRESHOLDS = {"PublishedEfficientViT": 0.55, "PublishedCrossEfficientViT": 0.6}
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
    network = build(model, {} if image_size is None else {"image_size": image_size})
    family = type(network).__name__
    if family not in _TRANSLATIONS:
        known = sorted(n for n, (kind, _) in MODELS.items() if kind.__name__ in _TRANSLATIONS)
        raise ConfigError(f"nobody publishes weights for {model!r}; known: {', '.join(known)}")
    tensors = _TRANSLATIONS[family](_read(source))
    size = cast(int, network.image_size)
    tensors = _resized(tensors, network, family, size)
    kept_head = _fit_head(tensors, network, _HEADS.get(family, "head"), family)
    _load(network, tensors, source)
    words: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    return network.eval(), _card(source, model, family, words, size, kept_head=kept_head)


def _read(source: str) -> Tensors:
    kind, _, name = source.partition(":")
    if kind == "timm" and name:
        timm = _library("timm")
        return dict(timm.create_model(name, pretrained=True).state_dict())
    if kind == "hf" and name:
        hub = _library("huggingface_hub")
        missing = importlib.import_module("huggingface_hub.errors").EntryNotFoundError
        try:
            return read_weights(Path(hub.hf_hub_download(name, "model.safetensors")))
        except missing:
            return read_weights(Path(hub.hf_hub_download(name, "pytorch_model.bin")))
    return read_weights(Path(source))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise ConfigError(f"{package} is not installed: pip install {package}") from error


def read_weights(path: Path) -> Tensors:
    """The tensors of a safetensors or torch file, without the wrappers of training scripts.

    Raises CheckpointError where the file cannot be read, holds anything but tensors and plain
    values, or holds no tensors.
    """
    try:
        with path.open("rb") as file:
            file.read(1)
        if path.suffix == ".safetensors":
            return dict(load_file(str(path)))
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: not read, because it holds more than weights or is damaged: {reason}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):  # pyright: ignore
            found = cast(Mapping[str, object], found)[wrapper]
            break
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path}: holds no weights by name")
    named = cast(Mapping[object, object], found)
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in named.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights by name")
    return tensors


def _as_it_is(tensors: Tensors) -> Tensors:
    return tensors


_HF_VIT = (
    (r"^(vit\.)?embeddings\.cls_token$", "cls_token"),
    (r"^(vit\.)?embeddings\.position_embeddings$", "pos_embed"),
    (r"^(vit\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(vit\.)?(encoder\.layer|layers)\.(\d+)\.", r"blocks.\3."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.(intermediate\.dense|mlp\.fc1)\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.(output\.dense|mlp\.fc2)\.", r"\1.mlp.fc2."),
    (r"^(vit\.)?layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)


def _vit(tensors: Tensors) -> Tensors:
    """timm's names, or either of the two that transformers has had."""
    if "patch_embed.proj.weight" in tensors:
        return {k: v for k, v in tensors.items() if not k.startswith("pre_logits.")}
    renamed = {_renamed(name, _HF_VIT): value for name, value in tensors.items()}
    joined: Tensors = {}
    for name, value in renamed.items():
        match = re.fullmatch(r"(.*\.attn)\.(query|key|value|q|k|v)\.(weight|bias)", name)
        if match is None:
            joined[name] = value
        elif match[2][0] == "q":
            long = len(match[2]) > 1
            parts = ("query", "key", "value") if long else ("q", "k", "v")
            names = [f"{match[1]}.{part}.{match[3]}" for part in parts]
            if all(part in renamed for part in names):
                joined[f"{match[1]}.qkv.{match[3]}"] = torch.cat([renamed[n] for n in names])
    return joined


_HF_CVT = (
    (r"^cvt\.", ""),
    (r"^encoder\.stages\.(\d)\.", r"stage\1."),
    (r"embedding\.convolution_embeddings\.projection", "patch_embed.proj"),
    (r"embedding\.convolution_embeddings\.normalization", "patch_embed.norm"),
    (r"layers\.(\d+)\.layernorm_before", r"blocks.\1.norm1"),
    (r"layers\.(\d+)\.layernorm_after", r"blocks.\1.norm2"),
    (r"layers\.(\d+)\.attention\.output\.dense", r"blocks.\1.attn.proj"),
    (r"layers\.(\d+)\.intermediate\.dense", r"blocks.\1.mlp.fc1"),
    (r"layers\.(\d+)\.output\.dense", r"blocks.\1.mlp.fc2"),
    (r"layers\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
    (
        r"convolution_projection_(.)\w*\.convolution_projection\.convolution",
        r"conv_proj_\1.conv",
    ),
    (
        r"convolution_projection_(.)\w*\.convolution_projection\.normalization",
        r"conv_proj_\1.bn",
    ),
    (r"projection_(q)uery|projection_(k)ey|projection_(v)alue", r"proj_\1\2\3"),
    (r"^layernorm", "norm"),
    (r"^classifier", "head"),
)


def _cvt(tensors: Tensors) -> Tensors:
    """Microsoft's names, or those of transformers."""
    if "stage0.patch_embed.proj.weight" in tensors:
        return tensors
    return {_renamed(name, _HF_CVT): value for name, value in tensors.items()}


def _efficientnet(tensors: Tensors) -> Tensors:
    """efficientnet-pytorch's names, or those of timm's `tf_efficientnet_*`."""
    if "_conv_stem.weight" not in tensors:
        tensors = _from_timm(tensors)
    return {f"net.{name}": value for name, value in tensors.items()}


def _from_timm(tensors: Tensors) -> Tensors:
    stages = sorted(
        {(int(m[1]), int(m[2])) for n in tensors if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", n))}
    )
    number = {place: i for i, place in enumerate(stages)}
    # A block without expansion has no first convolution: its batch norms count from the next.
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    outer["classifier"] = "_fc"
    inner = {"conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    inner |= {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    renamed: Tensors = {}
    for name, value in tensors.items():
        match = re.match(r"blocks\.(\d+)\.(\d+)\.(.*)\.(\w+)$", name)
        if match is None:
            part, _, last = name.rpartition(".")
            renamed[f"{outer.get(part, part)}.{last}"] = value
            continue
        block = number[int(match[1]), int(match[2])]
        expands = f"blocks.{match[1]}.{match[2]}.conv_pwl.weight" in tensors
        names = {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
        if not expands:
            names = {"conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
        part = (names | inner).get(match[3], match[3])
        renamed[f"_blocks.{block}.{part}.{match[4]}"] = value
    return renamed


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


# By the class of the network.
_TRANSLATIONS: dict[str, Callable[[Tensors], Tensors]] = {
    "ViT": _vit,
    "ConViT": _as_it_is,
    "CvT": _cvt,
    "CMT": _as_it_is,
    "EfficientNetClassifier": _efficientnet,
    "PublishedEfficientViT": _as_it_is,
    "PublishedCrossEfficientViT": _as_it_is,
}


def _resized(tensors: Tensors, network: nn.Module, family: str, size: int) -> Tensors:
    """Tables of positions fitted to the network's input size."""
    if family in ("ViT", "ConViT") and "pos_embed" in tensors:
        wanted = network.get_parameter("pos_embed").shape[1]
        first = 1 if family == "ViT" else 0  # the class token's own row
        tensors = tensors | {"pos_embed": _resize_grid(tensors["pos_embed"], wanted, first)}
    if family == "CMT" and "relative_pos_a" in tensors:
        old = 4 * round(tensors["relative_pos_a"].shape[1] ** 0.5)
        tensors = resize_bias(tensors, old, size)
    return tensors


def _resize_grid(table: Tensor, wanted: int, first: int) -> Tensor:
    """(1, `first` + G * G, D) -> (1, `wanted`, D), bicubically over the grid."""
    if table.ndim != 3 or table.shape[1] == wanted:
        return table
    old, new = (round((n - first) ** 0.5) for n in (table.shape[1], wanted))
    if old * old != table.shape[1] - first:
        return table  # not a grid: refused by name when it is loaded
    grid = table[:, first:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :first], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _fit_head(tensors: Tensors, network: nn.Module, head: str, family: str) -> bool:
    """Replace a classifier of things by one that answers 0; whether the file's own was kept."""
    if family in _PUBLISHED_THRESHOLDS:
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


def _card(
    source: str, model: str, family: str, words: dict[str, Any], size: int, *, kept_head: bool
) -> Card:
    origin = ORIGINS[family]
    published = _PUBLISHED_THRESHOLDS.get(family)
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
