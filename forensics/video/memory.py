"""How near this process has come to its limit of address space.

Decoders that get no memory often say something else: FFmpeg's threads report a corrupt picture,
decord that a file cannot be opened. Whoever meets such a failure asks here first.
"""

from __future__ import annotations

import resource
from pathlib import Path

_SPARE = 16 * 2**20  # what a decoder asks for beside pictures: a thread's stack, tables


def out_of_memory(memory_mb: int, needed_mb: int | None = None) -> str:
    """The sentence for a file that ends at its memory limit."""
    least = "" if needed_mb is None else f" above {needed_mb}"
    limit = f"the limit of {memory_mb} MB"
    return f"decoding needs more memory than {limit}: raise limits.memory_mb{least}"


def address_space() -> int:
    """Bytes of address space in use; 0 where the system does not tell."""
    return _status("VmSize:")


def require_room(num_bytes: int) -> None:
    """Raise MemoryError where `num_bytes` more would not have fitted below the limit at the peak.

    Does nothing where there is no limit or the system tells no peak.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    peak = _status("VmPeak:")
    if limit != resource.RLIM_INFINITY and peak and peak + num_bytes + _SPARE > limit:
        raise MemoryError(f"{num_bytes} bytes do not fit below the limit of {limit}")


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux
        return 0
    return next(
        (int(line.split()[1]) * 1024 for line in lines.splitlines() if line.startswith(name)), 0
    )
