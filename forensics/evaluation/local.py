"""The engine of one machine: many files at once, one model.

On a CPU each worker decodes its file in a child process and computes on one core: large batches win
nothing there, and a file's score is bit for bit that of a scan, whatever is examined beside it. On
an accelerator the workers share large passes (`together`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace

import torch

from forensics.checkpoint import Checkpoint
from forensics.config import ScanConfig
from forensics.errors import ConfigError, ScanCancelled
from forensics.evaluation.examine import Examiner, shared_precision
from forensics.evaluation.outcome import Outcome, Unit
from forensics.evaluation.together import SharedDetector, SharedModel
from forensics.faces import FaceDetector, MtcnnDetector
from forensics.models.inference import for_inference
from forensics.video import Cancellation

# Frames and faces in one pass on an accelerator, across files.
_PASS_FRAMES, _PASS_FACES = 64, 256
# Submitted ahead per worker: nobody waits for the loop that writes the ledger.
_AHEAD = 2


class LocalEngine:
    """Examines `workers` files at once (default: one per core); see `outcome.Engine`.

    While it runs on a CPU, PyTorch computes with one thread per worker in this process.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ScanConfig,
        *,
        workers: int | None = None,
        face_detector: FaceDetector | None = None,
    ) -> None:
        self._workers = workers if workers is not None else available_cores()
        if self._workers < 1:
            raise ConfigError(f"workers must be at least 1, not {workers}")
        self._checkpoint, self._config, self._faces = checkpoint, config, face_detector

    def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
        """As they finish. Closed early, it ends what is under way within moments."""
        device, dtype = shared_precision(self._checkpoint.card, self._config)
        running = _Running()
        with ExitStack() as stack:
            checkpoint, faces = self._checkpoint, self._faces
            if device.type == "cpu":
                stack.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(1)
            else:
                checkpoint.model.to(device)
                network = for_inference(checkpoint.model)
                model = SharedModel(network, dtype=dtype, most=_PASS_FACES)
                stack.callback(model.close)
                checkpoint = replace(checkpoint, model=model)
                shared = SharedDetector(faces or self._detector(str(device)), most=_PASS_FRAMES)
                stack.callback(shared.close)
                faces = shared
            examiner = stack.enter_context(Examiner(checkpoint, self._config, face_detector=faces))
            pool = stack.enter_context(
                ThreadPoolExecutor(self._workers, "forensics-file", initializer=_one_core)
            )
            stack.callback(running.cancel)  # before the pool waits for its threads
            yield from self._drained(units, examiner, pool, running)

    def _drained(
        self,
        units: Iterator[Unit],
        examiner: Examiner,
        pool: ThreadPoolExecutor,
        running: _Running,
    ) -> Iterator[Outcome]:
        waiting: set[Future[Outcome]] = set()
        try:
            while True:
                while len(waiting) < self._workers * _AHEAD:
                    unit = next(units, None)
                    if unit is None:
                        break
                    waiting.add(pool.submit(running.examine, examiner, unit))
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in waiting:
                future.cancel()

    def _detector(self, device: str) -> MtcnnDetector:
        faces = replace(self._config.faces, batch_frames=_PASS_FRAMES)
        return MtcnnDetector(faces, max_faces=self._config.limits.max_faces, device=device)


class _Running:
    """The files under way, so that all of them can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._cancellations: set[Cancellation] = set()

    def examine(self, examiner: Examiner, unit: Unit) -> Outcome:
        cancellation = Cancellation()
        with self._lock:
            if self._ended:
                raise ScanCancelled("the run was ended")
            self._cancellations.add(cancellation)
        try:
            return examiner.examine(unit, cancellation)
        finally:
            with self._lock:
                self._cancellations.discard(cancellation)

    def cancel(self) -> None:
        with self._lock:
            self._ended = True
            running = list(self._cancellations)
        for cancellation in running:
            cancellation.cancel()


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_core() -> None:
    """PyTorch's number of threads is partly kept per thread."""
    if torch.get_num_threads() == 1:
        torch.set_num_threads(1)
