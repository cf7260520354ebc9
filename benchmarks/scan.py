"""What a scan costs, with its floor beside it.

    python benchmarks/scan.py CLIP... [--detector NAME|PATH] [--repeat 3] [--no-reference]

For each clip:

- floor: PyAV alone, in this process, decoding the frames that a scan reads and turning them to RGB;
- warm scan: `Scanner.scan` with everything loaded, its ratio to the floor, each stage's share of it
  (a share is what the scan waited for that stage; decoding runs beside it, in the child);
- cold command: `deepfake scan CLIP` from nothing to its exit;
- peak memory: of all processes of that command together, in a second run, as proportional set size
  (pages shared between processes count once), sampled every 20 ms. Linux only;
- reference: the schedule of much research code. MTCNN as facenet-pytorch has it on every frame at
  half size, 16 at a time, then 32 frames' faces classified in float32.

Medians of `--repeat` runs, but for memory and the reference, which run once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from forensics import Report, ScanConfig, Scanner, load_checkpoint
from forensics.checkpoint import Checkpoint
from forensics.config import FacesConfig
from forensics.crops import cut, picture_area, square_box
from forensics.faces import to_faces
from forensics.preprocess import normalise
from forensics.sampling import sample_times
from forensics.structures import VideoInfo
from forensics.video import open_video
from forensics.video.pyav_reader import SEQUENTIAL_FRAMES

Pixels = NDArray[np.uint8]
SAMPLE_S = 0.02
REFERENCE_BATCH = 16  # frames: the batch of `FacesConfig`, so that only the schedule differs


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def facts(path: Path, config: ScanConfig) -> tuple[VideoInfo, NDArray[np.float64]]:
    """What the clip is, and the positions that a scan reads."""
    with open_video(path, limits=config.limits) as video:
        info = video.info
    times = sample_times(config.sampling, info.first_s, info.last_s, info.listed_frames)
    return info, times


def floor(path: Path, info: VideoInfo, positions: NDArray[np.float64]) -> None:
    """Decode to the frame shown at each position and turn it to RGB; nothing else."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if info.listed_frames <= SEQUENTIAL_FRAMES:
            _read_through(container.decode(stream), positions)
            return
        for position in positions:  # long clips are read by seeking, here as in a scan
            container.seek(int(position / stream.time_base), stream=stream)
            _read_through(container.decode(stream), positions=[position])


def _read_through(frames: Any, positions: Sequence[float] | NDArray[np.float64]) -> None:
    left, shown = list(positions), None
    for frame in frames:
        while left and shown is not None and frame.time > left[0] + 1e-3:
            left.pop(0)
            if not left or frame.time <= left[0] + 1e-3:
                shown.to_ndarray(format="rgb24")
        if not left:
            return
        shown = frame
    if left and shown is not None:
        shown.to_ndarray(format="rgb24")


def warm_scans(path: Path, scanner: Scanner, repeat: int) -> list[Report]:
    scanner.scan(path)  # pays for what only the first scan pays for
    return [scanner.scan(path) for _ in range(repeat)]


def cold_command(path: Path, detector: str) -> list[str]:
    script = Path(sysconfig.get_path("scripts")) / "deepfake"
    return [str(script), "scan", "--quiet", "--device", "cpu", "--detector", detector, str(path)]


def run_cold(command: list[str]) -> None:
    """Any answer will do: 0, 1 and 3 are verdicts and abstentions, 2 is an error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(command)} ended in {done.returncode}: {done.stderr.strip()}")


def peak_memory(command: list[str]) -> int:
    """Bytes of the command and all its descendants, at their highest."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_proportional_bytes, _tree(process.pid))))
            time.sleep(SAMPLE_S)
    return peak


def _tree(root: int) -> list[int]:
    """`root` and every process below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names only, many times a second
        with suppress(OSError, ValueError):
            # The name, in brackets, may hold spaces and brackets itself.
            stat = Path(f"/proc/{int(entry)}/stat").read_text(encoding="utf-8", errors="replace")
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found = [root]
    for member in found:  # grows while it is walked
        found += children.get(member, [])
    return found


def _proportional_bytes(process: int) -> int:
    with suppress(OSError):  # it ended meanwhile
        for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def reference(path: Path, checkpoint: Checkpoint, positions: NDArray[np.float64]) -> None:
    """MTCNN on every frame at half size, then the faces of the sampled frames classified."""
    detector = importlib.import_module("facenet_pytorch").MTCNN(keep_all=True, device="cpu")
    card = checkpoint.card
    crops: list[Pixels] = []
    batch: list[Pixels] = []
    times: list[float] = []
    wanted = list(positions)

    def flush() -> None:
        halves = [
            cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in batch
        ]
        boxes, probabilities, points = detector.detect(np.stack(halves), landmarks=True)
        for k, frame in enumerate(batch):
            if not wanted or times[k] < wanted[0] - 1e-3:
                continue
            while wanted and times[k] >= wanted[0] - 1e-3:
                wanted.pop(0)
            if boxes[k] is None:
                continue
            found = np.column_stack([boxes[k], probabilities[k]]).astype(np.float32)
            marks = np.asarray(points[k], dtype=np.float32)
            for face in to_faces(found, marks, halves[k].shape[:2], frame.shape[:2]):
                box = square_box(face.xyxy, card.preprocessing.margin, picture_area(frame))
                crops.append(cut(frame, box, card.preprocessing.size))
        batch.clear()
        times.clear()

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            batch.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.time)
            if len(batch) == REFERENCE_BATCH:
                flush()
        if batch:
            flush()
    with torch.inference_mode():
        for start in range(0, len(crops), 32):
            checkpoint.model(normalise(np.stack(crops[start : start + 32]), card.preprocessing))


def shares(report: Report) -> str:
    parts = dict(report.timings_s)
    parts["rest"] = max(0.0, report.seconds - sum(parts.values()))
    return "  ".join(f"{name} {seconds / report.seconds:.0%}" for name, seconds in parts.items())


def measure(path: Path, options: argparse.Namespace, scanner: Scanner) -> None:
    config = ScanConfig(device="cpu")
    info, positions = facts(path, config)
    print(
        f"\n{path.name}: {info.width} x {info.height}, {info.duration_s:.1f} s, "
        f"{info.listed_frames} frames, {info.codec}"
    )

    def line(name: str, value: str) -> None:
        print(f"  {name:<14}{value}", flush=True)

    floor(path, info, positions)  # the file into the page cache
    bottom = statistics.median(
        timed(lambda: floor(path, info, positions)) for _ in range(options.repeat)
    )
    line("floor", f"{bottom:.2f} s, {len(positions)} positions")
    reports = sorted(warm_scans(path, scanner, options.repeat), key=lambda report: report.seconds)
    middle = reports[len(reports) // 2]
    warm = middle.seconds
    line("warm scan", f"{warm:.2f} s, {warm / bottom:.1f} x the floor; {middle.verdict.label}")
    line("shares", shares(middle))
    command = cold_command(path, options.detector)
    cold = statistics.median(timed(lambda: run_cold(command)) for _ in range(options.repeat))
    line("cold command", f"{cold:.2f} s, {cold - warm:+.2f} s beside the warm scan")
    line("peak memory", f"{peak_memory(command) / 1e9:.2f} GB, all processes")
    if options.reference:
        checkpoint = load_checkpoint(options.detector)
        slow = timed(lambda: reference(path, checkpoint, positions))
        line("reference", f"{slow:.2f} s, {slow / warm:.1f} x the warm scan")


def main() -> None:
    parser = argparse.ArgumentParser(description="What a scan costs, with its floor beside it.")
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--detector", default="default", metavar="NAME|PATH")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-reference", dest="reference", action="store_false")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads, PyAV {av.__version__}, "
        f"detection at {FacesConfig().longest_side} px"
    )
    if load > 1:
        print("other work runs on this machine: times are too long", file=sys.stderr)
    with Scanner(options.detector, ScanConfig(device="cpu")) as scanner:
        for path in options.clips:
            measure(path, options, scanner)


if __name__ == "__main__":
    main()
