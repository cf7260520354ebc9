"""What a training run does: every setting with its default and the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from forensics.config import ExtractionConfig, require_within
from forensics.preprocess import Preprocessing, View

# What a draw is spread over evenly, outermost first. `dataset` and `video` are always columns of a
# store; `class` is the label.
BalanceKey = Literal["class", "dataset", "method", "source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network, and what it starts from."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str = "efficient-vit"  # a key of forensics.models.MODELS
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])  # its constructor's words
    # A shipped detector or a checkpoint file to start from; whatever fits by name is taken.
    init: str | None = None
    freeze: tuple[str, ...] = ()  # parts that do not learn, by the start of their names
    # Whether batch norms keep the statistics of `init` instead of learning those of small batches.
    keep_statistics: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What the network is shown."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    store: str | None = None  # crops, a manifest or a data set; `--data` sets it
    # Data sets of it that the run neither learns from nor is judged by: to find out elsewhere how
    # good it is on what it has never seen.
    leave_out: tuple[str, ...] = ()
    size: int = 224  # side of the input in pixels
    margin: float = 1.3  # side of the crop over that of the face (DeepfakeBench, GenD)
    batch: int = 32  # images of one step over all processes: results do not depend on their number
    workers: int = 2  # loader processes of each training process
    balance: tuple[BalanceKey, ...] = ("class", "dataset", "method", "source")
    # Shares within a level of `balance`: number of videos to this power. 0: all alike, 1: as they
    # come.
    balance_power: float = 0.0
    self_blended: float = 0.25  # share of the images in pairs of a real and its self-blended fake
    # Share of those pairs whose fake is not blended but drawn again by autoencoders, which are
    # learned from the reals for as many steps each before the run.
    reconstructed: float = 0.0
    autoencoder_steps: int = 8000
    matched: float = 0.0  # share in pairs of a fake and its original at the same moment
    # Which data sets with one class only are shown as single images, too; the others are in pairs
    # alone. A collection of photographs is known by its look.
    one_sided: Literal["all", "videos", "none"] = "all"
    # Share of the single reals to be cut into tiles and shuffled, as all single fakes without a
    # known original are where it is above 0: who is in the picture cannot be the answer then. To
    # be about the share of those fakes, or shuffling itself tells.
    shuffled: float = 0.0
    # Share of the pairs whose halves are changed (coded, blurred, coloured) each in its own way, so
    # that none is ranked by how good the pictures are. With 1 a run learns slowly at first.
    apart: float = 0.0
    # Of such pairs the real half is degraded 1 + this times as often, the fake half 1 - this times:
    # the worse picture is otherwise the one that scores higher, in whatever recording it is.
    tilt: float = 0.0
    margins: tuple[float, float] = (0.85, 1.19)  # `margin` varies by a factor between these
    augment: bool = True
    # How often pictures are coded, shrunk, blurred and noisy, over the usual: with 0.3 a run learns
    # two or three times as fast at first (docs/log.md), with 1 it bears more in the end.
    degraded: float = 1.0
    max_unreadable: int = 100  # crops that may fail to be read before the run stops

    def __post_init__(self) -> None:
        require_within(
            self,
            size=(8, 4096),
            margin=(0.5, 4.0),
            batch=(1, 2**20),
            workers=(0, 1024),
            self_blended=(0.0, 1.0),
            balance_power=(0.0, 1.0),
            reconstructed=(0.0, 1.0),
            autoencoder_steps=(1, 10**9),
            matched=(0.0, 1.0),
            shuffled=(0.0, 1.0),
            apart=(0.0, 1.0),
            degraded=(0.0, 1.0),
            tilt=(0.0, 1.0),
            max_unreadable=(0, 2**62),
        )
        if self.self_blended + self.matched > 1:
            raise ValueError("self_blended and matched are shares of the same images: at most 1")
        if self.degraded * (1 + self.tilt) > 1.5:
            raise ValueError("degraded times (1 + tilt): at most 1.5, where all pictures are coded")
        if self.reconstructed and not self.self_blended:
            raise ValueError("reconstructed is a share of the pairs that self_blended asks for")
        if not 0.3 <= self.margins[0] <= self.margins[1] <= 3.0:
            raise ValueError(f"margins: 0.3 <= from <= to <= 3, not {self.margins}")
        if len(set(self.balance)) < len(self.balance):
            raise ValueError(f"balance names a key twice: {', '.join(self.balance)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """How weights follow their gradients."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    # sam: sharpness-aware minimisation over SGD, two passes a step (Foret et al., 2021).
    name: Literal["adamw", "sgd", "sam"] = "adamw"
    lr: float = 1e-4  # of the last layer, after the warm-up; 3e-4 never left chance (docs/log.md)
    layer_decay: float = 1.0  # the rate of each layer over that of the layer after it
    weight_decay: float = 0.02  # of matrices and kernels; never of biases, norms and positions
    momentum: float = 0.9  # of sgd and sam
    rho: float = 0.05  # of sam: how far it climbs (Foret et al., 2021)

    def __post_init__(self) -> None:
        require_within(
            self,
            lr=(1e-12, 1e3),
            layer_decay=(1e-3, 1.0),
            weight_decay=(0.0, 10.0),
            momentum=(0.0, 0.9999),
            rho=(1e-6, 10.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """Learning rate over the run: a linear warm-up, then half a cosine."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    warmup: float = 0.05  # share of the run
    floor: float = 0.01  # share of the full rate that is left at the end

    def __post_init__(self) -> None:
        require_within(self, warmup=(0.0, 0.9), floor=(0.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Binary cross-entropy, and a ranking term inside self-blended pairs."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    label_smoothing: float = 0.03  # targets are this far from 0 and 1
    # Weight of softplus(real - fake) within a pair, which no offset of the source can satisfy.
    rank: float = 0.5

    def __post_init__(self) -> None:
        require_within(self, label_smoothing=(0.0, 0.49), rank=(0.0, 100.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """When and on what the best checkpoint is chosen: AUC of videos, the mean of their logits."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    every: int | None = None  # steps; by default once an epoch
    frames: int = 8  # of each video, evenly spaced (SBI validates on 8)
    batch: int = 64

    def __post_init__(self) -> None:
        require_within(self, every=(1, 2**62), frames=(1, 10**6), batch=(1, 2**20))


@dataclass(frozen=True, slots=True, kw_only=True)
class CardConfig:
    """What the checkpoint's card says that no run finds out."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str | None = None  # by default that of the run's folder
    version: str = "0"
    licence: str = "that of whoever trained it; the training media have terms of their own"
    # How a scan looks at a face; none: as the network was trained, at `data.margin`.
    views: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run does. `steps`, where given, replaces `epochs`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    card: CardConfig = field(default_factory=CardConfig)
    # Where the data given are no crops yet and have to be cut first.
    extract: ExtractionConfig = field(default_factory=ExtractionConfig)
    # Settings, over these, of a run before this one, in RUN/first, whose best weights this one
    # starts from: on smaller pictures, most often.
    first: Mapping[str, Any] = field(default_factory=dict[str, Any])
    epochs: int = 10  # of as many images as the training split has crops
    steps: int | None = None
    accumulate: int = 1  # batches whose gradients are added up for one step
    clip: float = 1.0  # longest gradient, as a norm over all weights; 0 leaves it as it is
    ema: float = 0.998  # decay of the averaged weights, which are the ones validated; 0: none
    precision: Literal[32, "bf16", "fp16"] = 32  # of the arithmetic; weights stay 32
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    save_every: int = 500  # steps between two states to resume from
    seed: int = 0

    def __post_init__(self) -> None:
        require_within(
            self,
            epochs=(1, 10**9),
            steps=(1, 2**53),
            accumulate=(1, 2**20),
            clip=(0.0, 1e9),
            ema=(0.0, 0.9999999),
            save_every=(1, 2**62),
            seed=(0, 2**32 - 1),
        )
        if self.card.views:  # refused before the run and not at its first checkpoint
            Preprocessing(
                size=self.data.size,
                margin=max(view.margin for view in self.card.views),
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
                views=self.card.views,
            )
        if self.optimizer.name == "sam" and self.precision == "fp16":
            # Its climb divides by the norm of the gradients, which fp16 has scaled.
            raise ValueError("sam does not train in fp16; use precision bf16 or 32")
