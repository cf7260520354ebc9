"""A decoder that crashes, hangs or eats memory costs one file; nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import makers
import numpy as np
import pytest

from forensics.config import Limits
from forensics.errors import ConfigError, MediaError
from forensics.video import VideoSession, dismiss, isolation, open_video, prestart


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return makers.write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=60)


def child_of(video: VideoSession) -> int:
    child = video._child
    assert child is not None
    return child.pid


DECODERS = ["pyav", "decord"] if find_spec("decord") else ["pyav"]


def read_all(path: Path, limits: Limits | None = None, decoder: str = "pyav") -> list[int]:
    with open_video(path, limits=limits or Limits(), decoder=decoder) as video:
        positions = np.linspace(video.info.first_s, video.info.last_s, 8)
        return [makers.read_number(frame.pixels) for frame in video.frames(positions)]


def test_importing_the_package_loads_no_decoder() -> None:
    code = (
        "import sys, forensics.video; print(sorted({'av', 'decord', 'torch'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_script_without_a_main_guard_works(clip: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import numpy as np
        from forensics.config import Limits
        from forensics.video import open_video
        with open_video({str(clip)!r}, limits=Limits()) as video:
            print(len(list(video.frames(np.array([0.0, 1.0])))))
        """)
    )
    # A module beside the script that would shadow one the child needs must not reach it.
    (tmp_path / "struct.py").write_text("raise SystemExit('shadowed')")
    environment = {**os.environ, "PYTHONPATH": ""}
    answer = subprocess.run(
        [sys.executable, "-P", str(script)] if sys.version_info >= (3, 11) else
        [sys.executable, "-I", str(script)],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert (answer.stdout.strip(), answer.stderr) == ("2", "")


@pytest.mark.parametrize(
    ("number", "label", "words"),
    [
        (signal.SIGSEGV, "undecodable", "crashed (signal 11)"),
        (signal.SIGABRT, "undecodable", "crashed (signal 6)"),
        (signal.SIGKILL, "limit_exceeded", "signal 9"),
        (signal.SIGXCPU, "limit_exceeded", "CPU"),
    ],
)
def test_a_dying_decoder_costs_one_file(
    clip: Path, number: signal.Signals, label: str, words: str
) -> None:
    with open_video(clip, limits=Limits()) as video:
        frames = video.frames(np.linspace(0, 1.9, 60))
        next(frames)
        os.kill(child_of(video), number)
        with pytest.raises(MediaError, match=r"clip\.mp4") as caught:
            list(frames)
    assert caught.value.label == label
    assert words in str(caught.value)
    assert len(read_all(clip)) == 8


def test_a_hanging_decoder_ends_at_the_wall_limit(clip: Path) -> None:
    with open_video(clip, limits=Limits(wall_s=1.5)) as video:
        frames = video.frames(np.linspace(0, 1.9, 60))
        next(frames)
        os.kill(child_of(video), signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(MediaError, match=r"limit of 1\.5 s") as caught:
            list(frames)
        assert time.monotonic() - started < 5
    assert caught.value.label == "limit_exceeded"
    assert len(read_all(clip)) == 8


def test_waiting_in_the_consumer_does_not_use_up_the_wall_limit(clip: Path) -> None:
    prestart("pyav")
    time.sleep(0.5)
    with open_video(clip, limits=Limits(wall_s=1.0)) as video:
        count = 0
        for _ in video.frames(np.linspace(0, 1.9, 12)):
            count += 1
            time.sleep(0.1)
    assert count == 12


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.mp4"
    return makers.write_video(
        path, frames=3, size=(3840, 2160), options={"preset": "ultrafast"}, draw=_flat
    )


def _flat(number: int, width: int, height: int) -> makers.Picture:
    return np.full((height, width, 3), 40 * number, np.uint8)


@pytest.mark.parametrize(
    ("decoder", "memory_mb"),
    [
        (decoder, memory_mb)
        for decoder in DECODERS
        for memory_mb in ((380, 420, 460) if decoder == "pyav" else (512, 600))
    ],
)
def test_memory_that_runs_out_while_decoding_is_never_taken_for_damage(
    large: Path, decoder: str, memory_mb: int
) -> None:
    # At 420 MB a decoder thread without memory once looked like a corrupt packet, at 512 MB decord
    # like a file that cannot be opened. How much is needed moves with the number of cores.
    frames: list[int] = []
    refusal: MediaError | None = None
    try:
        frames = read_all(large, Limits(memory_mb=memory_mb), decoder)
    except MediaError as error:
        refusal = error
    if refusal is None:
        assert len(frames) == 3
    else:
        assert refusal.label == "limit_exceeded"
        assert f"the limit of {memory_mb} MB: raise limits.memory_mb" in str(refusal)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("memory_mb", [1, 64, 256])
def test_a_memory_limit_below_what_a_decoder_needs_is_named(
    clip: Path, memory_mb: int, decoder: str
) -> None:
    words = rf"the limit of {memory_mb} MB: raise limits\.memory_mb above \d{{3}}$"
    with pytest.raises(MediaError, match=words) as caught:
        read_all(clip, Limits(memory_mb=memory_mb), decoder)
    assert caught.value.label == "limit_exceeded"


def test_endless_computing_ends_at_the_cpu_limit(tmp_path: Path) -> None:
    path = makers.write_long_video(tmp_path / "busy.mp4", seconds=7200)
    with (
        pytest.raises(MediaError, match=r"CPU .* limit of 1 s: raise limits\.cpu_s") as caught,
        open_video(path, limits=Limits(cpu_s=1)) as video,
    ):
        list(video.frames(np.linspace(0, 7199, 4000)))  # 4000 seeks are seconds of work
    assert caught.value.label == "limit_exceeded"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_pixels=10_000), r"160x96 .* limit of 10000 .*raise limits\.max_pixels"),
        (Limits(max_pixels=1), r"160x96 .* limit of 1 pixels: .*raise limits\.max_pixels"),
        (Limits(max_seconds=0.5), r"lasts 2\.0 s, .* is 0\.5 s: .*raise limits\.max_seconds"),
        (Limits(max_frames=4), r"8 frames asked, .* is 4: .*raise limits\.max_frames"),
        (Limits(wall_s=0.001), r"limit of 0\.001 s: raise limits\.wall_s"),
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_limits_are_named(clip: Path, limits: Limits, words: str, decoder: str) -> None:
    with pytest.raises(MediaError, match=words) as caught:
        read_all(clip, limits, decoder)
    assert caught.value.label == "limit_exceeded"


@pytest.mark.parametrize("codec", ["png", "mjpeg", "libwebp", "bmp"])
def test_a_picture_above_the_pixel_limit_is_refused(tmp_path: Path, codec: str) -> None:
    path = makers.write_image(tmp_path / "p.png", codec)
    with pytest.raises(MediaError, match="160x96") as caught:
        read_all(path, Limits(max_pixels=1000))
    assert caught.value.label == "limit_exceeded"


def test_a_header_that_lies_about_its_size_allocates_nothing(tmp_path: Path) -> None:
    def enlarge(data: bytearray) -> None:
        data[16:24] = (60000).to_bytes(4, "big") * 2

    path = makers.patch(makers.write_image(tmp_path / "bomb.png", "png"), enlarge)
    with pytest.raises(MediaError, match="60000x60000") as caught:
        read_all(path)
    assert caught.value.label == "limit_exceeded"


@pytest.mark.parametrize("name", ["gif", "apng", "y4m"])
def test_moving_pictures_that_claim_a_huge_size_are_over_the_limit(
    tmp_path: Path, name: str
) -> None:
    # FFmpeg does not open these and gives other reasons, "Device or resource busy" among them.
    png = bytearray(makers.write_image(tmp_path / "p.png", "png").read_bytes())
    png[16:24] = (60000).to_bytes(4, "big") * 2
    png[33:33] = struct.pack(">I4sII", 8, b"acTL", 2, 0) + bytes(4)
    content = {
        "gif": b"GIF89a" + struct.pack("<HH", 60000, 60000) + bytes(99),
        "apng": bytes(png),
        "y4m": b"YUV4MPEG2 W60000 H60000 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(999),
    }[name]
    path = tmp_path / f"huge.{name}"
    path.write_bytes(content)
    with pytest.raises(MediaError, match="60000x60000") as caught:
        read_all(path)
    assert caught.value.label == "limit_exceeded"


def test_frame_memory_that_the_system_refuses_is_a_named_abstention(clip: Path) -> None:
    # Memory without a name counts as a file: `ulimit -f` in a shell forbids it.
    code = textwrap.dedent(f"""
        import resource
        from forensics.config import Limits
        from forensics.errors import MediaError
        from forensics.video import open_video
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        try:
            open_video({str(clip)!r}, limits=Limits())
        except MediaError as error:
            print(error.label, error)
    """)
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith(f"limit_exceeded {clip}: no room for 95 MB of frames")
    assert "limits.delivered_pixels" in answer.stdout


def test_an_interrupt_while_a_frame_is_copied_leaves_nothing_behind(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _frame_memories()
    video = open_video(clip, limits=Limits())
    child = video._living()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    frames = video.frames(np.array([0.0]))
    with monkeypatch.context() as patched:
        patched.setattr(np, "array", interrupted)  # what copies the view
        with pytest.raises(KeyboardInterrupt), video:
            next(frames)
    assert child._process.poll() is not None
    del frames, video
    gc.collect()
    assert _frame_memories() == before


def _frame_memories() -> int:
    """How many descriptors and mappings of frame memory this process holds."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own descriptor
            targets.append(str(link.readlink()))
    return "".join(targets).count("forensics-frames") + Path("/proc/self/maps").read_text().count(
        "forensics-frames"
    )


def test_an_unknown_decoder_is_a_config_error(clip: Path) -> None:
    with pytest.raises(ConfigError, match="pyav, decord"):
        open_video(clip, decoder="opencv", limits=Limits())


def test_frames_own_their_memory(clip: Path) -> None:
    with open_video(clip, limits=Limits()) as video:
        frames = list(video.frames(np.linspace(0, 1.9, 30)))
    assert [makers.read_number(frame.pixels) for frame in frames] == sorted(
        {makers.read_number(frame.pixels) for frame in frames}
    )
    assert all(frame.pixels.flags.owndata or frame.pixels.base is not None for frame in frames)
    frames[0].pixels[:] = 0  # writable, and nobody else's
    assert makers.read_number(frames[1].pixels) > 0


def test_the_child_stays_only_a_few_frames_ahead(tmp_path: Path) -> None:
    path = makers.write_video(tmp_path / "a.mp4", frames=200, gop=20)
    with open_video(path, limits=Limits()) as video:
        frames = video.frames(np.linspace(0, 6.6, 200))
        next(frames)
        time.sleep(0.5)
        before = _cpu_ticks(child_of(video))
        time.sleep(0.3)
        assert _cpu_ticks(child_of(video)) - before <= 1


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_stats_before_the_end_are_refused(clip: Path) -> None:
    with open_video(clip, limits=Limits()) as video:
        with pytest.raises(RuntimeError, match="read to their end"):
            _ = video.stats
        list(video.frames(np.array([0.0])))
        with pytest.raises(RuntimeError, match="once"):
            video.frames(np.array([0.0]))


def test_a_standby_child_serves_one_file_and_dies_with_it(clip: Path) -> None:
    prestart("pyav")
    (waiting,) = isolation._standby
    with open_video(clip, limits=Limits()) as video:
        assert child_of(video) == waiting.pid
    assert not Path(f"/proc/{waiting.pid}").exists()
    assert isolation._standby == []


def test_a_standby_child_that_died_is_replaced(clip: Path) -> None:
    prestart("pyav")
    os.kill(isolation._standby[0].pid, signal.SIGKILL)
    time.sleep(0.1)
    assert len(read_all(clip)) == 8
    prestart("pyav")
    assert isolation._standby[-1].usable


def test_dismissal_ends_the_child_that_waits() -> None:
    prestart("pyav")
    (waiting,) = isolation._standby
    dismiss()
    assert isolation._standby == []
    assert waiting._process.poll() is not None
    dismiss()


def test_closing_never_fails_while_a_frame_is_being_copied(clip: Path) -> None:
    video = open_video(clip, limits=Limits())
    child = video._living()
    held = np.ndarray((8,), np.uint8, video._ring)  # as a traceback holds it after an interrupt
    video.close()
    assert child._process.poll() is not None
    assert held.shape == (8,)
    video.close()


def test_nothing_is_left_when_the_parent_is_killed(clip: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    code = textwrap.dedent(f"""
        import time, numpy as np
        from forensics.config import Limits
        from forensics.video import open_video, prestart, isolation
        video = open_video({str(clip)!r}, limits=Limits())
        next(video.frames(np.linspace(0, 1.9, 60)))
        prestart("pyav")
        print(video._child.pid, isolation._standby[0].pid, flush=True)
        time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in children)
    assert set(Path("/dev/shm").iterdir()) <= before


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_normal_end_leaves_no_standby_child() -> None:
    code = (
        "from forensics.video import isolation as i, prestart; "
        "prestart('pyav'); print(i._standby[0].pid)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not _alive(int(answer.stdout))
    assert answer.stderr == ""


def test_the_child_has_no_network(clip: Path) -> None:
    with open_video(clip, limits=Limits()) as video:
        mine = Path("/proc/self/ns/net").readlink()
        theirs = Path(f"/proc/{child_of(video)}/ns/net").readlink()
    if mine == theirs:
        pytest.skip("this kernel grants no network namespace to ordinary processes")
    assert mine != theirs


@pytest.mark.parametrize("seconds", [1200, pytest.param(7200, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path: Path, seconds: int) -> None:
    peaks: list[int] = []
    size = (1280, 720)
    for length in (10, seconds):
        path = makers.write_long_video(tmp_path / f"{length}.mp4", seconds=length, size=size)
        with open_video(path, limits=Limits()) as video:
            frames = video.frames(np.linspace(0, length - 0.1, 16))
            shown = [(makers.read_number(f.pixels), round(f.time_s * 30) % 30) for f in frames]
            assert all(number == expected for number, expected in shown)
            status = Path(f"/proc/{child_of(video)}/status").read_text()
            assert video.stats.coverage == 1.0
        peaks.append(int(status.split("VmHWM:")[1].split()[0]))
    assert peaks[1] < 1.1 * peaks[0]
