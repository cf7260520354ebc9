"""forensics.runtime: an absent device is an error, never a silent slower one."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from forensics import runtime
from forensics.errors import ConfigError


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")],
)
def test_auto_takes_the_fastest_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, chosen: str
) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert runtime.choose_device("auto") == torch.device(chosen)


def test_cpu_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=1, mps=True)
    assert runtime.choose_device("cpu") == torch.device("cpu")


def test_a_numbered_gpu_is_taken_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=2)
    assert runtime.choose_device("cuda:1") == torch.device("cuda:1")
    assert runtime.choose_device("cuda") == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "cuda", "words"),
    [
        ("cuda", 0, "device cuda is not available: PyTorch sees 0 CUDA devices"),
        ("cuda:0", 0, "cuda:0 is not available"),
        ("cuda:2", 2, "cuda:2 is not available: PyTorch sees 2 CUDA devices"),
        ("mps", 0, "mps is not available"),
    ],
)
def test_an_absent_device_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, cuda: int, words: str
) -> None:
    pretend(monkeypatch, cuda=cuda)
    with pytest.raises(ConfigError, match=words):
        runtime.choose_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:1 "])
def test_an_unknown_device_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="known: auto, cpu, cuda, cuda:N, mps"):
        runtime.choose_device(name)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_needs_a_cpu_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert runtime.autocast_dtype(torch.device("cpu")) == dtype


def test_a_pytorch_that_cannot_tell_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert runtime.autocast_dtype(torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_bfloat16_needs_an_ampere_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    def answer(_: torch.device) -> tuple[int, int]:
        return capability

    monkeypatch.setattr(torch.cuda, "get_device_capability", answer)
    assert runtime.autocast_dtype(torch.device("cuda")) == dtype


def test_a_seed_repeats_every_generator() -> None:
    def draw() -> tuple[float, float, float, float]:
        own = runtime.seed_everything(7)
        return random.random(), float(np.random.rand()), float(torch.rand(())), own.random()  # noqa: NPY002

    assert draw() == draw()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed must lie in"):
        runtime.seed_everything(seed)


def test_threads_are_set_and_checked() -> None:
    before = torch.get_num_threads()
    try:
        runtime.set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        runtime.set_threads(0)


def test_workers_compute_with_one_core_each_and_answer_in_order() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    workers = runtime.Workers(2)
    try:

        def threads(number: int) -> tuple[int, int]:
            return number, torch.get_num_threads()

        assert list(workers.map(threads, range(9))) == [(number, 1) for number in range(9)]
        assert torch.get_num_threads() == 3
        # A thread of somebody else's, first used after the workers were set up.
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
    finally:
        workers.close()
        workers.close()
        torch.set_num_threads(before)


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(number: int) -> float:
        return 1 / number

    workers = runtime.Workers(1)
    with pytest.raises(ZeroDivisionError):
        list(workers.map(fail, [1, 0]))
    workers.close()


def test_workers_are_for_several_cores_only() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert runtime.compute_workers(torch.device("meta")) is None
        workers = runtime.compute_workers(torch.device("cpu"))
        assert workers is not None
        workers.close()
        torch.set_num_threads(1)
        assert runtime.compute_workers(torch.device("cpu")) is None
    finally:
        torch.set_num_threads(before)
