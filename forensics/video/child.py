"""The decoder child: one process, one file. Everything that parses a stranger's bytes runs here.

Started by `forensics.video.isolation` as `python -I -c ... <socket> <decoder>`; talks `wire`.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import resource
import select
import socket
import sys
import threading
from pathlib import Path
from typing import Any

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_LOG_BYTES = 64 * 1024  # all that the child may write to any file: its captured stderr


def main(socket_fd: int, decoder: str) -> int:
    """Wait for one job on the socket, do it, leave."""
    leave_network()  # before any thread exists: the kernel asks for a single-threaded process
    channel = socket.socket(fileno=socket_fd)
    threading.Thread(target=_follow_parent, args=(socket_fd,), daemon=True).start()

    # What every job needs is loaded while a standby child waits.

    from forensics.errors import ForensicsError, MediaError
    from forensics.video import wire
    from forensics.video.memory import out_of_memory

    _load(decoder)
    try:
        message, fds = wire.receive(channel, max_fds=2)
        job = message["open"]
        budget = wire.Budget(**job["budget"])
        try:
            _require_memory(budget)
            limit(budget.memory_mb, budget.cpu_s)
            _serve(channel, fds, job["decoder"], budget)
        except MediaError as error:
            _report(channel, str(error), error.label)
        except MemoryError:
            _report(channel, out_of_memory(budget.memory_mb), "limit_exceeded")
        except ForensicsError as error:
            _report(channel, str(error), "unsupported")
        while True:  # acknowledgements may still come; the parent closes when it has read all
            wire.receive(channel)
    except wire.ConnectionEnded:
        return 0  # the parent lost interest


def _serve(channel: socket.socket, fds: list[int], decoder: str, budget: Any) -> None:
    import numpy as np

    from forensics.errors import MediaError
    from forensics.video import wire
    from forensics.video.reader import open_reader

    medium, frame_memory = fds
    ring = mmap.mmap(frame_memory, budget.slot_bytes * wire.SLOTS)
    with open(medium, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor, not a path
        try:
            reader = open_reader(file, decoder, budget)
            wire.send(channel, {"info": wire.to_json(reader.info)})
            order, _ = wire.receive(channel)
            free = list(range(wire.SLOTS))
            asked = reader.times_s if order["read"] == wire.EVERY_FRAME else order["read"]
            for frame in reader.read(np.array(asked, dtype=np.float64)):
                while not free:
                    free.append(int(wire.receive(channel)[0]["free"]))
                slot = free.pop()
                height, width, _ = frame.pixels.shape
                start = slot * budget.slot_bytes
                np.copyto(np.ndarray(frame.pixels.shape, np.uint8, ring, start), frame.pixels)
                where = {"slot": slot, "height": height, "width": width, "time_s": frame.time_s}
                wire.send(channel, {"frame": where})
            wire.send(channel, {"done": wire.to_json(reader.stats())})
        except (MediaError, MemoryError, wire.ConnectionEnded):
            raise
        except Exception as error:
            # A bug in a decoding library is this file's problem, with its name on it.
            raise MediaError(
                f"the {decoder} decoder failed: {type(error).__name__}: {error}",
                label="undecodable",
            ) from error


def _report(channel: socket.socket, message: str, label: str) -> None:
    from forensics.video import wire

    wire.send(channel, {"error": {"message": message, "label": label}})


def _load(decoder: str) -> None:
    """Import the reader's libraries before the job comes."""
    importlib.import_module("forensics.video.pyav_reader")
    if decoder == "decord":
        from forensics.video.decord_reader import load_decord

        load_decord()


def leave_network() -> None:
    """A network namespace of its own, without any interface, where the kernel grants one.

    Best effort, the second wall: the first is that no demuxer or protocol which opens anything is
    ever selected (`sniff`, `probe.open_container`).
    """
    if sys.platform == "linux":
        unshare = getattr(ctypes.CDLL(None), "unshare", None)
        if unshare is not None:
            unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _follow_parent(socket_fd: int) -> None:
    """End this process when the parent's end of the socket closes, however the parent died.

    Not PR_SET_PDEATHSIG: that fires when the parent's *thread* that started us ends.
    """
    poll = select.poll()
    poll.register(socket_fd, getattr(select, "POLLRDHUP", 0) | select.POLLHUP)
    poll.poll()
    os._exit(0)


def _require_memory(budget: Any) -> None:
    """Refuse a limit below what this process holds already: under one, nothing that happens next
    can be told from damage, not even by Python."""
    from forensics.errors import MediaError
    from forensics.video import wire
    from forensics.video.memory import address_space, out_of_memory

    needed = (address_space() + budget.slot_bytes * wire.SLOTS) // 2**20 + 1
    if needed > budget.memory_mb:
        raise MediaError(out_of_memory(budget.memory_mb, needed), label="limit_exceeded")


def limit(memory_mb: int, cpu_s: float, file_bytes: int = _LOG_BYTES) -> None:
    """What this process may use from now on; `file_bytes` for each file that it writes."""
    memory = memory_mb * 2**20
    seconds = max(1, int(cpu_s + 0.999))
    for what, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, seconds, seconds + 5),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
        (resource.RLIMIT_NOFILE, 64, 64),
    ):
        _, most = resource.getrlimit(what)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(what, (soft, hard))


def package_home() -> str:
    """The folder this `forensics` package lies in; the child must import the same one."""
    return str(Path(__file__).resolve().parents[2])
