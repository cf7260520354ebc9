"""The engine of many machines, through Ray: files are decoded on CPUs, networks run in actors.

A task reads one file with the scan itself; what a network must see goes to a model actor: frames
scaled down for detection, crops for scoring. Full frames never leave the machine that decoded them.
Without GPUs the actors compute with one thread each, as the local engine does: the same scores.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forensics.card import Card
from forensics.checkpoint import Checkpoint, load_checkpoint
from forensics.config import ScanConfig
from forensics.downscale import shrink
from forensics.errors import CheckpointError, ConfigError
from forensics.evaluation.examine import Examiner, shared_precision
from forensics.evaluation.outcome import Outcome, Unit, failed
from forensics.faces import MtcnnDetector, as_rgb
from forensics.models.inference import for_inference
from forensics.structures import Face
from forensics.video import Cancellation

# How often a file is tried again when its worker or machine is lost.
_RETRIES = 3
# Files handed out per decoding core: enough that none idles, few enough that memory stays flat.
_AHEAD = 2
# Of the cores of a cluster without GPUs, for the networks: they cost three times the decoding.
_MODEL_SHARE = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What every worker needs to know. `weights` holds a reference to the checkpoint's bytes: in a
    tuple it stays one on its way, and only actors fetch it."""

    card: Card
    sha256: str
    file_name: str
    config: ScanConfig
    weights: tuple[Any, ...]
    detector: Callable[[], Any] | None  # stands in for MTCNN in tests


class RayEngine:
    """Examines files on a Ray cluster; see `outcome.Engine`.

    `address` is the cluster's (`auto`, `ray://host:10001`, `host:6379`); None starts one on this
    machine. `workers` bounds the files under way (default: two per decoding core). Raises
    ConfigError where Ray is missing or the cluster cannot be reached.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ScanConfig,
        *,
        address: str | None = None,
        workers: int | None = None,
        detector: Callable[[], Any] | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers must be at least 1, not {workers}")
        self._ray = _connected(address)
        self._order = _Order(
            card=checkpoint.card,
            sha256=checkpoint.sha256,
            file_name=checkpoint.path.name,
            config=config,
            weights=(self._ray.put(checkpoint.path.read_bytes()),),
            detector=detector,
        )
        resources: dict[str, float] = self._ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        count = gpus or max(1, int(cpus * _MODEL_SHARE))
        decoding = max(1, cpus - count)
        self._most = workers or decoding * _AHEAD
        # Decoding takes what the networks leave, however few cores there are.
        self._task_cpus = 1.0 if cpus > count else 0.5
        options: dict[str, Any] = {
            "num_gpus": 1 if gpus else 0,
            "num_cpus": 1.0 if cpus > count else 0.5,
            "max_restarts": -1,
            "max_task_retries": _RETRIES,
        }
        actor = self._ray.remote(**options)(_Model)
        # Without the weights: Ray does not promise to fetch them again for an actor it restarts.
        bare = replace(self._order, weights=())
        self._models: list[Any] = [actor.remote(bare) for _ in range(count)]

    def precision(self) -> torch.dtype:
        """The type that all actors compute in.

        Raises ConfigError where they differ, as their scores would, and where one cannot start.
        """
        try:
            found: list[str] = self._ray.get(
                [model.precision.remote(self._order.weights) for model in self._models]
            )
        except self._ray.exceptions.RayError as error:
            # The actor's own words are the last line; what is above is where it said them.
            words = [line for line in str(error).splitlines() if line.strip()][-1].strip()
            raise ConfigError(f"Ray: a model could not be started there: {words}") from error
        if len(set(found)) > 1:
            raise ConfigError(
                f"the machines of this cluster compute in {' and '.join(sorted(set(found)))}; "
                "their scores would differ: use machines of one kind"
            )
        return cast("torch.dtype", getattr(torch, found[0]))

    def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
        """As they finish. Closed early, it cancels what is under way."""
        task = self._ray.remote(num_cpus=self._task_cpus, max_retries=_RETRIES)(_examine)
        order, models = self._ray.put(self._order), cycle(self._models)
        running: dict[Any, Unit] = {}
        try:
            while True:
                while len(running) < self._most:
                    unit = next(units, None)
                    if unit is None:
                        break
                    running[task.remote(order, unit, next(models))] = unit
                if not running:
                    return
                (done,), _ = self._ray.wait(list(running), num_returns=1)
                yield self._outcome(done, running.pop(done))
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _outcome(self, reference: Any, unit: Unit) -> Outcome:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, (CheckpointError, ConfigError)):
                raise cause from error
            return failed(unit, f"unexpected {' '.join(str(cause or error).split())[:300]}")
        except self._ray.exceptions.RayError as error:
            words = f"{type(error).__name__} after {_RETRIES} retries"
            return failed(unit, f"the worker was lost: {words}; --retry-failed tries again")


class _Model:
    """An actor: detector and network on one device."""

    def __init__(self, order: _Order) -> None:
        config = order.config
        self._device, self._dtype = shared_precision(order.card, config)
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        self._file_name = order.file_name
        self._network: nn.Module | None = None
        self._faces: Any = (
            order.detector()
            if order.detector
            else MtcnnDetector(
                config.faces, max_faces=config.limits.max_faces, device=str(self._device)
            )
        )

    def precision(self, weights: tuple[Any, ...]) -> str:
        """Ready to compute, and in which type."""
        self._loaded(weights)
        return str(self._dtype).removeprefix("torch.")

    def _loaded(self, weights: tuple[Any, ...]) -> nn.Module:
        """The network; loaded at the first call, and at the first after a restart."""
        if self._network is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / self._file_name
                path.write_bytes(_ray().get(weights[0]))
                model = load_checkpoint(path, device=self._device).model
            self._network = for_inference(model)
        return self._network

    def find(
        self, smalls: list[NDArray[np.uint8]], full_hws: list[tuple[int, ...]]
    ) -> list[list[Face]]:
        # Arrays from the object store cannot be written to, which PyTorch warns of.
        return self._faces.detect_small([np.array(small) for small in smalls], full_hws)

    def logits(self, x: NDArray[np.float32], weights: tuple[Any, ...]) -> NDArray[np.float32]:
        """(B, S, S, 3) normalised -> (B,). Channels last, as `preprocess` gives them: another order
        in memory would choose other kernels, and round otherwise."""
        inputs = torch.from_numpy(np.array(x))  # pyright: ignore[reportUnknownMemberType]
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32),
        ):
            logits: Tensor = self._loaded(weights)(inputs.permute(0, 3, 1, 2).to(self._device))
        return logits.to("cpu", torch.float32).numpy()


class _RemoteDetector:
    """A FaceDetector that shrinks frames here and looks for faces there."""

    def __init__(self, ray: Any, model: Any, longest_side: int) -> None:
        self._ray, self._model, self._longest_side = ray, model, longest_side

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        smalls = [shrink(as_rgb(frame), self._longest_side) for frame in frames]
        sizes = [frame.shape[:2] for frame in frames]
        return self._ray.get(self._model.find.remote(smalls, sizes))


class _RemoteNetwork(nn.Module):
    """(B, 3, S, S) float32 -> (B,) logits, computed by an actor."""

    def __init__(self, ray: Any, model: Any, weights: tuple[Any, ...]) -> None:
        super().__init__()
        self._ray, self._model, self._weights = ray, model, weights

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1).contiguous().numpy()
        logits: NDArray[np.float32] = self._ray.get(
            self._model.logits.remote(pixels, self._weights)
        )
        return torch.from_numpy(np.array(logits))  # pyright: ignore[reportUnknownMemberType]


def _examine(order: _Order, unit: Unit, model: Any) -> Outcome:
    """A task: one file on whatever machine has a core free."""
    ray = _ray()
    checkpoint = Checkpoint(
        card=order.card,
        model=_RemoteNetwork(ray, model, order.weights),
        sha256=order.sha256,
        path=Path(order.file_name),
    )
    # This side computes nothing: its device is where the frames are.
    config = replace(order.config, device="cpu")
    faces = _RemoteDetector(ray, model, config.faces.longest_side)
    with Examiner(checkpoint, config, face_detector=faces) as examiner:
        return examiner.examine(unit, Cancellation())


def _connected(address: str | None) -> Any:
    ray = _ray()
    if not ray.is_initialized():
        # Ray reports its use to its makers unless told otherwise: nothing leaves this machine.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"Ray: {address or 'this machine'}: no cluster: {reason}; start one with "
                "`ray start --head`, or leave out --ray-address"
            ) from error
    return ray


def _ray() -> Any:
    """Ray has no complete types; `Any` says so once."""
    try:
        return cast(Any, importlib.import_module("ray"))
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'deepfake[ray]'") from error
