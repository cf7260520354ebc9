"""`deepfake`: the commands and their options; each command's module is imported when it runs."""

from __future__ import annotations

import os
import sys
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .calibrate import calibrate
from .data import data
from .extract import extract
from .terminal import ERROR, error_line, guarded
from .train import train


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Decoder(str, Enum):
    pyav = "pyav"
    decord = "decord"


class ExportFormat(str, Enum):
    onnx = "onnx"


class Engine(str, Enum):
    local = "local"
    ray = "ray"


class _OneLineErrors(TyperGroup):
    """Usage errors as one line, as every other error; a command's result is the exit status."""

    def main(self, args: Any = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(arguments, *rest, standalone_mode=False, **extra)
        # Completion comes without arguments, in an environment variable.
        completing = any(key.endswith("_COMPLETE") for key in os.environ)
        try:
            status = super().main(
                arguments if arguments or completing else ["--help"],
                *rest,
                standalone_mode=False,
                **extra,
            )
        except Exception as error:
            # click's usage errors; typer carries its own copy of click, so no class to name here.
            describe = getattr(error, "format_message", None)
            if describe is None:
                raise
            error_line(f"{describe()} Try `deepfake --help`.")
            status = ERROR
        sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    cls=_OneLineErrors,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data, name="data")
app.command()(extract)
app.command()(train)
app.command()(calibrate)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"deepfake {metadata.version('deepfake')}")
        raise typer.Exit


@app.callback()
def deepfake(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Deepfake video forensics on your own files: a verdict, or a named abstention.

    Nothing leaves this machine. Results go to stdout, everything else to stderr.

    Example: [bold]deepfake scan video.mp4[/bold]
    """


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Check this installation: versions, devices, decoders, weights, and a timed self-test.

    Paste its output into bug reports: it holds no path of yours and no file name.

    \b
    Example:
      deepfake doctor

    \b
    Exit status:
      0  all checks passed
      2  at least one failed
    """

    def command() -> int:
        from .doctor import run

        return run(as_json=as_json)

    return guarded(command)


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one with its stages.")
    ] = None,
) -> int:
    """List the networks a detector can be built from, or show one.

    \b
    Examples:
      deepfake models
      deepfake models cvt-13

    \b
    Exit status:
      0  shown
      2  there is no such network
    """

    def command() -> int:
        from .models import run

        return run(name)

    return guarded(command)


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A .safetensors or torch file, timm:NAME, or hf:OWNER/NAME."
        ),
    ],
    model: Annotated[str, typer.Option(metavar="NAME", help="Which network the weights are for.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write (default: NAME.safetensors)."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Resize tables of positions to this input size in pixels."),
    ] = None,
) -> int:
    """Turn published weights into a checkpoint: names, shapes and pixels translated.

    Torch files are read without running anything in them. A backbone's classifier of things is
    replaced by one that answers nothing until it is trained. timm: and hf: use the network.

    \b
    Examples:
      deepfake convert efficient_vit.pth --model efficient-vit-published
      deepfake convert timm:convit_tiny.fb_in1k --model convit-tiny --out convit.safetensors

    \b
    Exit status:
      0  written
      2  an error: the file cannot be read, does not fit, or cannot be written
    """

    def command() -> int:
        from .convert import run

        return run(source, model, out=out, image_size=image_size)

    return guarded(command)


@app.command()
def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Shipped detector or checkpoint file.")
    ],
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="What to write.")
    ] = ExportFormat.onnx,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write (default: the name with .onnx)."),
    ] = None,
) -> int:
    """Write a detector for other runtimes, and compare its logits before keeping it.

    The batch size stays free, the card travels along: a scan takes the result as its detector.
    Needs the extra `onnx`: pip install 'deepfake[onnx]'.

    \b
    Examples:
      deepfake export default
      deepfake export mine.safetensors --format onnx --out mine.onnx
      deepfake scan video.mp4 --detector mine.onnx

    \b
    Exit status:
      0  written, and equal to the checkpoint
      2  an error: it cannot be read or written, or its logits differ
    """

    def command() -> int:
        from .export import run

        assert file_format is ExportFormat.onnx  # the only one
        return run(checkpoint, out=out)

    return guarded(command)


@app.command()
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


@app.command()
def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A layout (ffpp, celebdf, dfdc, dfdc-preview, real-fake, ...), or a manifest.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run.")],
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where the files are; with a manifest also an address (s3://, gs://, memory://).",
        ),
    ] = None,
    detector: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Shipped detector or checkpoint file.")
    ] = "default",
    split: Annotated[
        str | None, typer.Option(help="train, val or test only (default: all files).")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="How many frames to look at, evenly spaced (default: 32).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Files examined at once (default: one per core).")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="This machine, or a cluster through Ray.")
    ] = Engine.local,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The cluster's (default: one is started here)."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also examine again what failed before.")
    ] = False,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also recompressed, at half size, with noise, cropped: 7 x longer."
        ),
    ] = False,
    allow_leak: Annotated[
        bool,
        typer.Option("--allow-leak", help="Score people seen in training; every table says so."),
    ] = False,
    from_csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Score these predictions (file, probability) instead."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr; errors remain.")
    ] = False,
) -> int:
    """Measure a detector on a data set, the way the literature does. Needs the extra `evaluate`.

    Every file's result is kept as it finishes: interrupted or killed, the same command goes on.
    RUN gets summary.json, summary.md, plots, the worst mistakes, tables in Parquet, submission.csv.

    \b
    Examples:
      deepfake evaluate ffpp --root FaceForensics++ --split test --out runs/ffpp
      deepfake evaluate manifest.csv --root s3://bucket/videos --out runs/cloud --engine ray
      deepfake evaluate dfdc --root DFDC/test --from-csv theirs.csv --out runs/theirs

    \b
    Exit status:
      0    finished, every file has an answer (an abstention is one)
      1    finished, but files failed: --retry-failed examines them again
      2    an error: wrong usage, a leak, a run of something else in RUN
      130  interrupted; the same command goes on where it stopped
    """

    def command() -> int:
        from .evaluate import run

        return run(
            dataset,
            out=out,
            root=root,
            detector=detector,
            split=split,
            frames=frames,
            workers=workers,
            engine=engine.value,
            ray_address=ray_address,
            retry_failed=retry_failed,
            robustness=robustness,
            allow_leak=allow_leak,
            from_csv=from_csv,
            quiet=quiet,
        )

    if ray_address is not None and engine is not Engine.ray:
        raise typer.BadParameter("--ray-address needs --engine ray.")
    if from_csv is not None and robustness:
        raise typer.BadParameter("--from-csv and --robustness exclude each other.")
    return guarded(command)


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders written by deepfake evaluate, two or more."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> int:
    """Compare detectors on the files that all of them judged, with p-values.

    Each difference is measured on the same bootstrap draws of whole clusters of files.

    \b
    Example:
      deepfake compare runs/mine runs/theirs

    \b
    Exit status:
      0  compared
      2  an error: not a run, or nothing in common
    """

    def command() -> int:
        from .compare import run

        return run(runs, as_json=as_json)

    return guarded(command)
