"""The decoder child seen from the parent: start it, talk to it, and survive whatever it does.

`subprocess`, not `multiprocessing`: a user's script without a `__main__` guard must work. The child
gets an almost empty environment, the medium as an open descriptor, and a piece of anonymous memory
for frames, which vanishes with the last of the two processes.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import mmap
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from forensics.errors import MediaError
from forensics.video import wire
from forensics.video.child import package_home
from forensics.video.memory import out_of_memory
from forensics.video.reader import check_decoder

# `forensics` goes before site-packages and behind the standard library, so that nothing beside the
# package can stand in for a standard module; -I keeps the caller's folder and environment out.
BOOTSTRAP = """
import json, sys
socket_fd, decoder, home, more = json.loads(sys.argv[1])
place = next((n for n, p in enumerate(sys.path) if p.endswith("-packages")), len(sys.path))
sys.path.insert(place, home)
sys.path.extend(path for path in more if path not in sys.path)
from forensics.video.child import main
sys.exit(main(socket_fd, decoder))
"""
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate memory", "can't start new thread")
_START_S = 60.0  # loading PyAV takes 0.2 s, or much longer from a cold network disk


class DecoderProcess:
    """One child for one file. `waited_s` is the wall time the parent spent waiting for it."""

    def __init__(self, decoder: str) -> None:
        self.decoder = decoder
        self.waited_s = 0.0
        self._owner = os.getpid()
        # Whoever signals the child must know that its number has not gone to another process.
        self._reaping = threading.Lock()
        self.limit(memory_mb=0, wall_s=0.0, cpu_s=0.0)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by kill
        more = [path for path in sys.path if path.endswith("-packages")]  # --user, --system sites
        argument = json.dumps([theirs.fileno(), decoder, package_home(), more])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", BOOTSTRAP, argument],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env=child_environment(),
                cwd="/",
            )
        except BaseException:
            self._channel.close()
            self._log.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Alive, and ours: a forked worker must not talk to its parent's child."""
        return self._owner == os.getpid() and self._process.poll() is None

    def limit(self, *, memory_mb: int, wall_s: float, cpu_s: float) -> None:
        """What the child may use; named in the errors of those who ask for more."""
        self._memory_mb, self._wall_s, self._cpu_s = memory_mb, wall_s, cpu_s

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send one message; raises MediaError where the child has died."""
        self._channel.settimeout(_START_S)
        try:
            wire.send(self._channel, message, fds)
        except wire.ConnectionEnded as error:
            raise self._autopsy() from error
        except TimeoutError as error:
            self.kill()
            raise MediaError(
                "the decoder did not take its orders in time", label="limit_exceeded"
            ) from error

    def receive(self) -> dict[str, Any]:
        """The child's next message. Raises MediaError for its own errors, for its death, and
        `limit_exceeded` when all waits together pass the wall time limit."""
        started = time.monotonic()
        try:
            left = self._wall_s - self.waited_s
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            message, _ = wire.receive(self._channel)
        except TimeoutError as error:
            self.kill()
            raise MediaError(
                f"decoding took longer than the limit of {self._wall_s:g} s: raise limits.wall_s "
                "or look at fewer frames",
                label="limit_exceeded",
            ) from error
        except wire.ConnectionEnded as error:
            raise self._autopsy() from error
        finally:
            self.waited_s += time.monotonic() - started
        if "error" in message:
            raise MediaError(str(message["error"]["message"]), label=str(message["error"]["label"]))
        return message

    def kill(self) -> None:
        """End the child and release everything; may be called again."""
        self._channel.close()
        if self._owner == os.getpid():
            with self._reaping:
                self._process.kill()
                self._process.wait()
        else:
            self._process.returncode = 0  # a fork's copy: not ours to end or to wait for
        self._log.close()

    def stop(self) -> None:
        """End the child from another thread: who waits for its answer gets a MediaError now."""
        with self._reaping:
            if self._process.returncode is None:
                self._process.kill()

    def _autopsy(self) -> MediaError:
        """Why the child ended without saying so."""
        try:
            with self._reaping:
                status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
            return MediaError("the decoder broke off its answer", label="undecodable")
        last_words = self._last_words()
        self.kill()
        if status == -signal.SIGXCPU:
            return MediaError(
                f"decoding used more CPU time than the limit of {self._cpu_s:g} s: raise "
                "limits.cpu_s or look at fewer frames",
                label="limit_exceeded",
            )
        if status == -signal.SIGKILL:
            return MediaError(
                "the decoder was killed (signal 9), as the system does when memory runs out: "
                "free some and try again",
                label="limit_exceeded",
            )
        if any(sign in last_words for sign in _OUT_OF_MEMORY):
            return MediaError(out_of_memory(self._memory_mb), label="limit_exceeded")
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        tail = f": {last_words}" if last_words else ""
        return MediaError(f"the decoder crashed ({how}){tail}", label="undecodable")

    def _last_words(self) -> str:
        """The last line of the child's stderr, printable and short."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 4096))
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return "".join(char for char in last if char.isprintable())[:200].strip()


def frame_memory(num_bytes: int) -> tuple[int, mmap.mmap]:
    """Anonymous memory that both sides map, as (descriptor, map); it has no name that could leak.

    Pages are real only once written, so a ring of the largest slots costs what its frames need.
    Where the kernel has seals the child cannot shrink it under the parent's feet. Raises MediaError
    `limit_exceeded` where the system grants less.
    """
    try:
        return _frame_memory(num_bytes)
    except OSError as error:  # no memory, or a limit on file sizes: memory of this kind is a file
        raise MediaError(
            f"no room for {num_bytes / 2**20:.0f} MB of frames ({error.strerror}): lower "
            "limits.delivered_pixels, or raise this process's limits of memory and file size",
            label="limit_exceeded",
        ) from error


def _frame_memory(num_bytes: int) -> tuple[int, mmap.mmap]:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("forensics-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
        seals = 0
    try:
        os.ftruncate(fd, num_bytes)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd, mmap.mmap(fd, num_bytes)
    except BaseException:
        os.close(fd)
        raise


def child_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return kept | {
        "DECORD_EOF_RETRY_MAX": "2048",  # 10240 by default; 64 already fails on good files
        "OPENBLAS_NUM_THREADS": "1",  # numpy's thread pool only eats address space here
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",  # every arena reserves 64 MB of the address space limit
    }


# One idle child may wait for its file: starting Python and loading FFmpeg costs nothing then.
# State of the module by necessity: the process outlives every call.
_standby: list[DecoderProcess] = []
_lock = threading.Lock()


def prestart(decoder: str) -> None:
    """Have a child ready for the next file; does nothing where one already waits.

    Raises ConfigError for an unknown decoder.
    """
    check_decoder(decoder)
    with _lock:
        if any(child.decoder == decoder and child.usable for child in _standby):
            return
        _drop_standby()
        _standby.append(DecoderProcess(decoder))


def take(decoder: str) -> DecoderProcess:
    """The waiting child, if it is for this decoder and alive; a new one otherwise."""
    with _lock:
        for child in _standby:
            if child.decoder == decoder and child.usable:
                _standby.remove(child)
                return child
    return DecoderProcess(decoder)


def dismiss() -> None:
    """End the waiting child, if there is one."""
    with _lock:
        _drop_standby()


def _drop_standby() -> None:
    while _standby:
        _standby.pop().kill()


atexit.register(dismiss)


def open_medium(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file. Raises MediaError `undecodable` naming what is wrong."""
    try:
        target = Path(path)
        # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot be opened: {reason}", label="undecodable") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise MediaError("is not a regular file", label="undecodable")
    return fd
