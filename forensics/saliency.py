"""Heat maps: the places of a face that a network's answer hangs on.

Transformers: attention rollout (Abnar and Zuidema, ACL 2020) with gradient-weighted attention
(Chefer, Gur and Wolf, ICCV 2021), followed from the answer back to the first layer. Convolutional
extractors: Grad-CAM (Selvaraju et al., ICCV 2017) on the last map. A hybrid has both: what its
transformer reads, weighted by what the extractor says there; so has CvT, whose attention alone
tells little because its convolutions carry what lies where. The published forms of Coccomini et
al. read a whole map as one token, with weights of its own for each place: there is no attention to
follow, and Grad-CAM, which averages gradients over the places, mixes up what they say. There:
gradient times activation (Shrikumar, Greenside and Kundaje, ICML 2017), place by place.

Gradients count by their size, not their sign: networks also learn a fake as the lack of what is
real, and there the sign points away from it. By sign is only the plain classifier's Grad-CAM, where
map and logit are one linear step apart. Measured in docs/log.md.

Legend: B images, S side in pixels, h heads, N queries, M keys, G grid side (N = G x G, one more
with a class token), D width.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forensics.models.cmt import CMT
from forensics.models.convit import ConViT
from forensics.models.cross_efficient_vit import CrossEfficientViT
from forensics.models.cvt import CvT
from forensics.models.efficient_vit import EfficientViT
from forensics.models.efficientnet import EfficientNetClassifier
from forensics.models.hybrid import Hybrid
from forensics.models.published import (
    PublishedCrossEfficientViT,
    PublishedEfficientViT,
    first_position,
)
from forensics.models.vit import ViT
from forensics.trace import Attended, Trace, recorded

ROLLOUT = "Attention rollout with gradient-weighted attention (Chefer et al., 2021)."
GRAD_CAM = "Grad-CAM on the extractor's last maps (Selvaraju et al., 2017)."
BOTH = "Gradient-weighted attention rollout of the transformer times Grad-CAM of its convolutions."
IN_PLACE = "Gradient times activation of the extractor's last maps, by size, place by place."

_ONE_TOKEN = (PublishedCrossEfficientViT, PublishedEfficientViT)  # for a whole map


def method_of(model: nn.Module) -> str | None:
    """How `heat_maps` explains this network, None where it does not: an exported one has no
    gradients, and of one from elsewhere nobody knows which of its tokens lie where."""
    model = _core(model)
    if isinstance(model, ViT | ConViT | CMT):
        return ROLLOUT
    if isinstance(model, CvT | EfficientViT | Hybrid):
        return BOTH
    # Of two scales at once there is no place to follow attention to.
    if isinstance(model, EfficientNetClassifier | CrossEfficientViT):
        return GRAD_CAM
    if isinstance(model, _ONE_TOKEN):
        return IN_PLACE
    return None


def _core(model: nn.Module) -> nn.Module:
    """The network that does the work: of a hybrid without an extractor its transformer."""
    if isinstance(model, Hybrid) and model.extractor is None:
        return model.transformer
    return model


def heat_maps(model: nn.Module, x: Tensor) -> Tensor:
    """(B, 3, S, S) float32, normalised as the card says -> (B, S, S) float32 in 0..1, on the CPU.

    Large where the logit hangs on the picture most; an image in which nothing was found is zero all
    over, any other has a maximum of 1. An image's map hangs on no other image of the batch. `model`
    must be in eval mode, on the device of `x`, and not at work in another thread meanwhile. Raises
    ValueError for a network that `method_of` does not know.
    """
    method = method_of(model)
    if method is None:
        raise ValueError(f"no heat maps of a network of type {type(model).__name__}")
    model = _core(model)
    if len(x) == 1:
        # A batch of one has gradients that are wrong behind some convolutions (PyTorch 2.15, seen
        # against differences on hybrids with CvT and CMT); the same image twice has not.
        return heat_maps(model, x.expand(2, -1, -1, -1).contiguous())[:1]
    trace = Trace()
    with torch.enable_grad(), first_position(model), recorded(model, trace):
        # One answer per image; rows of a batch do not meet, so one sum serves all.
        answer = cast(Tensor, model(x.detach().requires_grad_())).sum()
    parts: list[Tensor] = []
    if method in (ROLLOUT, BOTH):
        parts.append(_rollout(answer, trace))
    if method != ROLLOUT:
        parts.append(_of_extractors(answer, trace, model))
    heat = torch.ones(len(x), x.shape[2], x.shape[3])
    for part in parts:
        heat = heat * _unit(_resized(part.detach().float().cpu(), x.shape[2]))
    return _unit(heat)


def _of_extractors(answer: Tensor, trace: Trace, model: nn.Module) -> Tensor:
    """(B, G, G): the last map of each extractor; of a shared one also the early map it gave."""
    used = [maps[-1] for maps in trace.maps]
    if isinstance(model, CrossEfficientViT):
        used.append(trace.maps[0][model.early + 1])
    gradients = torch.autograd.grad(answer, used, retain_graph=True)
    side = max(maps.shape[-1] for maps in used)
    one_token = isinstance(model, _ONE_TOKEN)
    signed = isinstance(model, EfficientNetClassifier)
    heat = [
        (maps * gradient).abs().sum(1) if one_token else _grad_cam(maps, gradient, signed=signed)
        for maps, gradient in zip(used, gradients, strict=True)
    ]
    return torch.stack([_unit(_resized(part.detach(), side)) for part in heat]).sum(0)


def _grad_cam(maps: Tensor, gradient: Tensor, *, signed: bool = True) -> Tensor:
    """(B, D, G, G) twice -> (B, G, G): channels weighted by their mean gradient.

    `signed` keeps what speaks for a fake, as published; else what speaks either way.
    """
    heat = (gradient.mean((2, 3), keepdim=True) * maps).sum(1)
    return heat.clamp_min(0) if signed else heat.abs()


def _rollout(answer: Tensor, trace: Trace) -> Tensor:
    """(B, G, G) relevance of the first layer's places, followed backwards from the answer."""
    weights = [call.weights for call in trace.attended]
    gradients = torch.autograd.grad(answer, weights, retain_graph=True)
    relevance = _start(answer, trace)  # (B, prefix + N)
    for call, gradient in zip(reversed(trace.attended), reversed(gradients), strict=True):
        mixed = _gradient_weighted(call, gradient.detach())  # (B, N, M)
        grid, prefix = _layout(mixed.shape[1])
        relevance = _fitted(relevance, grid, prefix)
        mixed = _spread(mixed, grid, prefix)  # (B, N, N)
        relevance = relevance + torch.einsum("bn,bnm->bm", relevance, mixed)
    grid, prefix = _layout(relevance.shape[1])
    return _as_grid(relevance[:, prefix:], grid)


def _start(answer: Tensor, trace: Trace) -> Tensor:
    """Where the answer is read: the class token; in CMT, which has none, Grad-CAM of the end."""
    batch, _, tokens, _ = trace.attended[-1].weights.shape
    grid, prefix = _layout(tokens)
    if prefix:
        start = torch.zeros(batch, tokens, device=answer.device, dtype=answer.dtype)
        start[:, 0] = 1
        return start
    last = trace.tokens[-1]
    (gradient,) = torch.autograd.grad(answer, last, retain_graph=True)
    heat = _grad_cam(*(_as_map(part.detach(), grid) for part in (last, gradient)))
    return _unit(heat).flatten(1)


def _gradient_weighted(call: Attended, gradient: Tensor) -> Tensor:
    """(B, N, M): the attention that the answer hangs on, averaged over heads."""
    weights = call.weights.detach()
    if call.layer is not None:
        # ConViT adds attention by position behind the call: what is explained is the mixture.
        layer = call.layer
        with torch.no_grad():
            rows, columns = layer.places()  # (h, G, G) each
            places = torch.einsum("hij,hkl->hikjl", rows, columns)
            places = places.reshape(len(rows), layer.grid**2, layer.grid**2)  # (h, N, N)
            gate = torch.sigmoid(layer.gating_param).view(1, -1, 1, 1)
        weights = (1 - gate) * weights + gate * places
        gradient = gradient / (1 - gate).clamp_min(1e-6)
    return (weights * gradient).abs().mean(1)


def _layout(tokens: int) -> tuple[int, int]:
    """Grid side and number of class tokens of a row of tokens."""
    side = math.isqrt(tokens)
    return (side, 0) if side * side == tokens else (math.isqrt(tokens - 1), 1)


def _fitted(relevance: Tensor, grid: int, prefix: int) -> Tensor:
    """(B, N') of a later layer -> (B, N): another grid, with or without a class token."""
    old_grid, old_prefix = _layout(relevance.shape[1])
    places = relevance[:, old_prefix:]
    if old_grid != grid:  # an earlier stage: each place stands for several smaller ones
        wide = _resized(_as_grid(places, old_grid), grid)
        places = wide.flatten(1) * (old_grid / grid) ** 2
    head = relevance[:, :old_prefix] if prefix == old_prefix else relevance[:, :0]
    return torch.cat((head, places), dim=1)


def _spread(mixed: Tensor, grid: int, prefix: int) -> Tensor:
    """(B, N, M) with keys on a coarser grid -> (B, N, N): each key's share over its places."""
    few = math.isqrt(mixed.shape[2] - prefix)
    if few == grid:
        return mixed
    batch, queries = mixed.shape[:2]
    places = mixed[:, :, prefix:].reshape(batch * queries, few, few)
    places = _resized(places, grid).view(batch, queries, grid * grid) * (few / grid) ** 2
    return torch.cat((mixed[:, :, :prefix], places), dim=2)


def _as_map(tokens: Tensor, grid: int) -> Tensor:
    """(B, N, D) -> (B, D, G, G)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, grid, grid)


def _as_grid(places: Tensor, grid: int) -> Tensor:
    """(B, N) -> (B, G, G)."""
    return places.reshape(places.shape[0], grid, grid)


def _resized(heat: Tensor, side: int) -> Tensor:
    """(B, G, G) -> (B, side, side), bilinear."""
    if heat.shape[-1] == side:
        return heat
    return F.interpolate(heat[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def _unit(heat: Tensor) -> Tensor:
    """Each map over its own maximum; one that is zero stays zero."""
    most = heat.flatten(1).amax(1).view(-1, 1, 1)
    return torch.where(most > 0, heat / most.clamp_min(torch.finfo(heat.dtype).tiny), heat)
