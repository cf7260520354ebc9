"""The commands that look at files and their reports: scan, verify, rerun, serve."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import guarded


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Decoder(str, Enum):
    pyav = "pyav"
    decord = "decord"


def scan(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Files, folders (searched to the bottom), globs."),
    ],
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, one line per file (schema deepfake-report/2)."),
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, one row per file below a header.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write NAME.json per file into this folder."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Also write one page for people, a section per file."
        ),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.mp4", help="Also write a copy of the video with boxes and scores."
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY.pem", help="Sign the JSON reports with this Ed25519 private key."
        ),
    ] = None,
    detector: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Shipped detector or checkpoint file.")
    ] = "default",
    device: Annotated[Device | None, typer.Option(help="Where to compute (default: auto).")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability from which on a face is likely fake (default: the detector's own)."
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="How many frames to look at, evenly spaced (default: 32).")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Look at this many frames per second instead.")
    ] = None,
    start: Annotated[float | None, typer.Option(help="Look from this second on.")] = None,
    end: Annotated[float | None, typer.Option(help="Look up to this second.")] = None,
    decoder: Annotated[
        Decoder | None, typer.Option(help="Which library reads video (default: pyav).")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Faces judged together: less needs less memory (default: 4 a core, 32 on a GPU)."
        ),
    ] = None,
    longest_side: Annotated[
        int | None,
        typer.Option(
            min=20,
            help="Look for faces at this size in pixels: more finds smaller ones (default: 640).",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Settings; options given here override them."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr; errors remain.")
    ] = False,
) -> int:
    """Say of each video or picture whether its faces look made by a machine.

    Labels: likely_fake, likely_real, uncertain; or, where nothing can be said, no_face,
    undecodable, no_video_stream, limit_exceeded, unsupported.

    \b
    Examples:
      deepfake scan video.mp4
      deepfake scan clips/ 'more/**/*.mov' --json > reports.jsonl
      deepfake scan long.mkv --start 60 --end 90 --fps 4 --out reports/
      deepfake scan video.mp4 --report report.html --overlay annotated.mp4
      deepfake scan video.mp4 --json --sign key.pem > report.json

    \b
    Exit status:
      0    nothing found: at least one file was judged, none likely_fake, no error
      1    at least one file is likely_fake, whatever became of the others
      2    an error: wrong usage, a missing path, a file that failed unexpectedly,
           or a run that had to stop (disk full, broken checkpoint)
      3    abstained only: no file could be judged
      130  interrupted
    """
    overrides: dict[str, Any] = {
        "decoder": decoder and decoder.value,
        "device": device and device.value,
        "threshold": threshold,
        "batch_size": batch_size,
        "sampling": {"frames": frames, "fps": fps, "start_s": start, "end_s": end},
        "faces": {"longest_side": longest_side},
    }

    def command() -> int:
        from .scan import run

        return run(
            paths,
            layout="json" if as_json else "csv" if as_csv else "table",
            out=out,
            page=report,
            overlay=overlay,
            key=sign,
            detector=detector,
            config_file=config,
            overrides=overrides,
            quiet=quiet,
        )

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other.")
    return guarded(command)


def verify(
    report: Annotated[Path, typer.Argument(metavar="REPORT.json", help="What a scan wrote.")],
    video: Annotated[
        Path | None, typer.Argument(metavar="[VIDEO]", help="The file it is said to be about.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="KEY.pub", help="Ed25519 public key of who must have signed it."),
    ] = None,
) -> int:
    """Say what of a report matches and what does not: signature, signer, settings, verdict, video.

    \b
    Examples:
      deepfake verify report.json
      deepfake verify report.json video.mp4 --key lab.pub

    \b
    Exit status:
      0  proven: signed with the key given, nothing contradicts it
      1  something does not match
      2  an error: a file cannot be read or is no report
      3  nothing contradicts it, but nothing proves it: unsigned, or no --key
    """

    def command() -> int:
        from .verify import run

        return run(report, video=video, key=key)

    return guarded(command)


def rerun(
    report: Annotated[Path, typer.Argument(metavar="REPORT.json", help="What a scan wrote.")],
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="The file it is about.")],
    detector: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="The detector (default: the one of its name here)."),
    ] = None,
) -> int:
    """Repeat the analysis of a report with its own settings, and compare.

    On the same machine with the same software all numbers must be equal, elsewhere within 0.03 for
    a person's probability, 0.07 for a frame's and 5% of a face for its box.

    \b
    Example:
      deepfake rerun report.json video.mp4

    \b
    Exit status:
      0    the same result
      1    another result, another file or another detector
      2    an error: something cannot be read, or the analysis failed
      130  interrupted
    """

    def command() -> int:
        from .verify import repeat

        return repeat(report, video, detector=detector)

    return guarded(command)


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than this machine's needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.")] = 8000,
    detector: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Shipped detector or checkpoint file.")
    ] = "default",
    device: Annotated[Device | None, typer.Option(help="Where to compute (default: auto).")] = None,
    max_upload_mb: Annotated[
        int,
        typer.Option(help="Largest file taken, in MB; waiting files lie in a temporary folder."),
    ] = 1024,
    queue: Annotated[int, typer.Option(help="How many files may wait.")] = 8,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DEEPFAKE_TOKEN",
            help="Ask for this: the browser's password, or a bearer token. 16 characters or more.",
        ),
    ] = None,
) -> int:
    """Open a web page on this machine: drop files, watch progress, read reports. And an API.

    Files stay in a private temporary folder until they are examined, reports until the end; then
    everything is removed. Needs the extra `serve`: pip install 'deepfake\\[serve]'.

    \b
    Examples:
      deepfake serve
      deepfake serve --port 9000 --max-upload-mb 4096
      DEEPFAKE_TOKEN=$(openssl rand -hex 16) deepfake serve --host 0.0.0.0

    \b
    Exit status:
      0  ended by Ctrl-C or SIGTERM
      2  an error: the address cannot be had, the detector cannot be loaded
    """
    overrides = {
        "host": host,
        "port": port,
        "max_upload_mb": max_upload_mb,
        "queue": queue,
        "token": token,
    }

    def command() -> int:
        from .serve import run

        return run(overrides, detector=detector, device=device and device.value)

    return guarded(command)
