"""What one forward pass of a network leaves behind: its attention, and its extractors' maps.

The networks call fused attention, which keeps no weights. Here, and only here, the call is
intercepted and computed in the open; nothing about a network changes.

Legend: B images, h heads, N queries, M keys, D width, G grid side.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from efficientnet_pytorch import EfficientNet  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from forensics.models.cmt import CmtBlock
from forensics.models.convit import GatedPositionalAttention
from forensics.models.cvt import ConvEmbed, CvT


@dataclass(slots=True)
class Attended:
    """One attention call: `weights` (B, h, N, M) and, in ConViT, the `layer` that mixes them."""

    weights: Tensor
    layer: GatedPositionalAttention | None


@dataclass(slots=True)
class Trace:
    """What one forward pass left behind, in order."""

    attended: list[Attended] = field(default_factory=list[Attended])
    maps: list[list[Tensor]] = field(default_factory=list[list[Tensor]])  # of each extractor
    tokens: list[Tensor] = field(default_factory=list[Tensor])  # after CMT's blocks, (B, N, D)
    layer: GatedPositionalAttention | None = None


class _OpenAttention(TorchFunctionMode):
    """Computes `scaled_dot_product_attention` step by step and keeps the weights."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = cast("tuple[Tensor, Tensor, Tensor]", args)
        logits = q @ k.transpose(-1, -2) * (kwargs.get("scale") or q.shape[-1] ** -0.5)
        if kwargs.get("attn_mask") is not None:
            logits = logits + kwargs["attn_mask"]
        weights = logits.softmax(dim=-1)  # (B, h, N, M)
        self._trace.attended.append(Attended(weights=weights, layer=self._trace.layer))
        return weights @ v


@contextmanager
def recorded(model: nn.Module, trace: Trace) -> Generator[None]:
    """Within the block, a forward pass of `model` fills `trace`; afterwards no hook is left."""

    def enter(module: nn.Module, _: Any) -> None:
        trace.layer = cast(GatedPositionalAttention, module)

    def leave(*_: Any) -> None:
        trace.layer = None

    def keep(into: list[Tensor]) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            into.append(output)

        return hook

    with ExitStack() as hooks:
        for part in model.modules():
            if isinstance(part, GatedPositionalAttention):
                hooks.callback(part.register_forward_pre_hook(enter).remove)
                hooks.callback(part.register_forward_hook(leave).remove)
            elif isinstance(part, CmtBlock):
                hooks.callback(part.register_forward_hook(keep(trace.tokens)).remove)
            elif isinstance(part, CvT):
                trace.maps.append(maps := list[Tensor]())
                for stage in part.modules():
                    if isinstance(stage, ConvEmbed):
                        hooks.callback(stage.register_forward_hook(keep(maps)).remove)
            elif isinstance(part, EfficientNet):
                net, maps = cast(Any, part), list[Tensor]()
                trace.maps.append(maps)
                # After the stem, after each block, and after the head where there is one.
                for stage in (net._swish, *net._blocks):
                    hooks.callback(stage.register_forward_hook(keep(maps)).remove)
        hooks.enter_context(_OpenAttention(trace))
        yield
