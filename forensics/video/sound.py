"""Sound of one file beside the pictures of another, packets copied as they are.

The container with the sound is a stranger's: it is taken apart in a process of its own, without
network where the kernel grants that, which also puts the two together.
"""

from __future__ import annotations

import heapq
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forensics.errors import MediaError
from forensics.video import wire
from forensics.video.child import leave_network, limit, package_home
from forensics.video.isolation import BOOTSTRAP, child_environment, open_medium
from forensics.video.sniff import HEAD_BYTES, sniff

if TYPE_CHECKING:
    from forensics.config import Limits

_DEMUX_ERRORS = 8  # in a row, after which the rest of the sound is given up


def count_sound(source: Path, container: str, limits: Limits) -> int:
    """How many sound streams `source` has; none in a picture.

    Raises MediaError where `container` (FFmpeg's name) cannot hold them.
    """
    return _run(source, None, None, container, limits)


def add_sound(source: Path, pictures: Path, target: Path, container: str, limits: Limits) -> None:
    """Write to the existing file `target` the video of `pictures` and the sound of `source`.

    Raises MediaError where that fails; `target` is then of no use.
    """
    _run(source, pictures, target, container, limits)


def _run(
    source: Path, pictures: Path | None, target: Path | None, container: str, limits: Limits
) -> int:
    fds = [open_medium(source)]
    try:
        if pictures is not None and target is not None:
            fds += [os.open(pictures, os.O_RDONLY), os.open(target, os.O_RDWR)]
        budget = wire.Budget.of(limits)
        job = {"fds": fds, "container": container, "budget": asdict(budget)}
        more = [entry for entry in sys.path if entry.endswith("-packages")]
        argument = json.dumps([job, None, package_home(), more])
        done = subprocess.run(
            [
                *(sys.executable, "-I", "-c"),
                BOOTSTRAP.replace("forensics.video.child", "forensics.video.sound"),
                argument,
            ],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            cwd="/",
            timeout=limits.wall_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MediaError(
            f"{source}: copying the sound took longer than the limit of {limits.wall_s:g} s: raise "
            "limits.wall_s",
            label="limit_exceeded",
        ) from error
    finally:
        for fd in fds:
            os.close(fd)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        answer = {"error": f"copying the sound ended with status {done.returncode}"}
    if "error" in answer:
        raise MediaError(f"{source}: {answer['error']}", label="undecodable")
    return int(answer["streams"])


def main(job: dict[str, Any], _: object) -> int:
    """The child: do the job, say in one line of JSON what came of it."""
    leave_network()
    budget = wire.Budget(**job["budget"])
    fds: list[int] = job["fds"]
    try:
        limit(budget.memory_mb, budget.cpu_s, file_bytes=2**62)
        answer: dict[str, Any] = {"streams": _copy(fds, str(job["container"]), budget)}
    except MediaError as error:
        answer = {"error": str(error)}
    except OSError as error:
        answer = {"error": f"the sound cannot be copied: {error.strerror or error}"}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    return 0


def _copy(fds: list[int], container: str, budget: wire.Budget) -> int:
    # The child's business alone, and by name: partly without types.
    av: Any = import_module("av")
    probe: Any = import_module("forensics.video.probe")
    discard: Any = import_module("av.stream").Discard

    with ExitStack() as opened:
        medium = opened.enter_context(open(fds[0], "rb"))  # noqa: PTH123  a descriptor, as below
        sniffed = sniff(medium.read(HEAD_BYTES))
        if sniffed.kind == "image":
            return 0
        source = opened.enter_context(probe.open_container(medium, sniffed, budget))
        sounds = [one for one in source.streams.audio if one.codec_context is not None]
        for stream in source.streams:
            if stream not in sounds:
                stream.discard = discard.all
        if len(fds) == 1:  # only asked whether it would work
            sink = opened.enter_context(av.open(os.devnull, "w", format=container))
            _add(sink, sounds, container)
            if sounds:
                sink.start_encoding()
            return len(sounds)
        pictures = opened.enter_context(av.open(opened.enter_context(open(fds[1], "rb"))))  # noqa: PTH123
        target = opened.enter_context(open(fds[2], "r+b"))  # noqa: PTH123
        sink = opened.enter_context(av.open(target, "w", format=container))
        _merge(sink, pictures, source, sounds, container)
        return len(sounds)


def _add(sink: Any, streams: list[Any], container: str) -> dict[int, Any]:
    """Output streams by index of the input's; raises MediaError where the container refuses one."""
    added: dict[int, Any] = {}
    for stream in streams:
        name = stream.codec_context.name
        if stream.codec_context.codec.canonical_name not in sink.supported_codecs:
            raise MediaError(
                f"sound in {name} cannot be copied into {container}: name the annotated video .mkv",
                label="unsupported",
            )
        added[stream.index] = sink.add_stream_from_template(stream)
    return added


def _merge(sink: Any, pictures: Any, source: Any, sounds: list[Any], container: str) -> None:
    """Both inputs' packets in order of their times."""
    film = sink.add_stream_from_template(pictures.streams.video[0])
    added = _add(sink, sounds, container)
    seen = _timed(pictures, {pictures.streams.video[0].index: film})
    heard = _timed(source, added) if sounds else iter(())
    for _, _, packet in heapq.merge(seen, heard, key=lambda entry: entry[:2]):
        sink.mux(packet)


def _timed(container: Any, targets: dict[int, Any]) -> Iterator[tuple[float, int, Any]]:
    """(seconds, stream, packet) of the streams in `targets`, each packet bound for its target."""
    ffmpeg_error: type[Exception] = import_module("av.error").FFmpegError
    streams = [stream for stream in container.streams if stream.index in targets]
    errors = 0
    latest: dict[int, int] = {}
    while errors < _DEMUX_ERRORS:
        try:
            for packet in container.demux(streams):
                if packet.size == 0 or packet.dts is None:
                    continue
                index = packet.stream.index
                # Damaged files go back in time, which muxers refuse.
                if packet.dts <= latest.get(index, packet.dts - 1):
                    continue
                latest[index], errors = packet.dts, 0
                time_s = float(packet.dts * packet.time_base)
                packet.stream = targets[index]
                yield time_s, index, packet
        except ffmpeg_error:
            errors += 1
        else:
            return
