"""One model for many threads: what they ask for while it works is answered in one large pass.

Nobody waits for a batch to fill: whatever waits when the model is free goes together.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forensics.faces import FaceDetector
from forensics.structures import Face

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Answers calls from any thread with `work`, which gets several questions at once.

    `work` gives one answer per question; `size` counts a question, and no more questions join once
    `most` is reached. What `work` raises is raised in every call it served.
    """

    def __init__(
        self, work: Callable[[list[Q]], Sequence[A]], *, size: Callable[[Q], int], most: int
    ) -> None:
        self._work, self._size, self._most = work, size, most
        self._waiting: queue.SimpleQueue[tuple[Q, Future[A]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="forensics-model", daemon=True)
        self._thread.start()

    def __call__(self, question: Q) -> A:
        answer: Future[A] = Future()
        self._waiting.put((question, answer))
        return answer.result()

    def close(self) -> None:
        """End the thread; to be called when nobody asks any more."""
        self._waiting.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, count, ended = [first], self._size(first[0]), False
            while count < self._most and not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    ended = True
                    break
                batch.append(more)
                count += self._size(more[0])
            try:
                answers = self._work([question for question, _ in batch])
                for (_, future), answer in zip(batch, answers, strict=True):
                    future.set_result(answer)
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            if ended:
                return


class SharedDetector:
    """A FaceDetector whose callers share passes of `detector`."""

    def __init__(self, detector: FaceDetector, *, most: int) -> None:
        def work(questions: list[Sequence[NDArray[np.uint8]]]) -> list[list[list[Face]]]:
            found = detector.detect([frame for frames in questions for frame in frames])
            return _parts(found, [len(frames) for frames in questions])

        self._together = Together(work, size=len, most=most)

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        return self._together(frames)

    def close(self) -> None:
        self._together.close()


class SharedModel(nn.Module):
    """A network whose callers share passes of `model`: (B, 3, S, S) float32 -> (B,) logits."""

    def __init__(self, model: nn.Module, *, dtype: torch.dtype, most: int) -> None:
        super().__init__()

        def work(questions: list[Tensor]) -> Sequence[Tensor]:
            device = questions[0].device.type
            # Autocast and inference mode belong to a thread; the callers' do not reach this one.
            with (
                torch.inference_mode(),
                torch.autocast(device, dtype, enabled=dtype != torch.float32),
            ):
                logits: Tensor = model(torch.cat(questions))
            return torch.split(logits, [len(x) for x in questions])

        self._together: Together[Tensor, Tensor] = Together(work, size=len, most=most)

    def forward(self, x: Tensor) -> Tensor:
        return self._together(x)

    def close(self) -> None:
        self._together.close()


def _parts(values: list[Any], lengths: list[int]) -> list[list[Any]]:
    ends = np.cumsum(lengths).tolist()
    return [values[end - length : end] for end, length in zip(ends, lengths, strict=True)]
