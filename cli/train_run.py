"""`deepfake train`: settings, crops, and a bar while it learns."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forensics.config import load_config, nearest
from forensics.errors import ConfigError, TrainingError
from forensics.training.config import TrainConfig
from forensics.training.first import all_of, first_of

from .settings import parse_yaml, read_yaml, with_settings
from .terminal import INTERRUPTED, emit, error_line
from .train_show import TrainingScreen

if TYPE_CHECKING:
    from forensics.datasets.shards import CropStore
    from forensics.training.progress import Outcome


def run(
    config: str | None,
    *,
    data: Path | None,
    out: Path | None,
    resume: bool,
    settings: Sequence[str],
    print_config: bool,
    quiet: bool,
) -> int:
    """Train as configured; the result is the exit status."""
    if resume and out is None:
        raise ConfigError("--resume needs --out: the folder of the run to go on with")
    if resume and config is not None:
        raise ConfigError("--resume goes on with the settings of the run; leave --config out")
    chosen = effective_config(config, data, settings, run=out if resume else None)
    if print_config:
        from forensics.training.folder import as_yaml

        emit(as_yaml(chosen))
        return 0
    if out is None:
        raise ConfigError("--out is missing: the folder for the checkpoint, curves and state")
    if chosen.data.store is None:
        raise ConfigError("--data is missing: crops, a manifest or a data set to learn from")
    outcome = _train(chosen, Path(chosen.data.store), out, resume=resume, quiet=quiet)
    if not _first_process():
        return 0
    return _tell(outcome, out)


def effective_config(
    config: str | None, data: Path | None, settings: Sequence[str], *, run: Path | None = None
) -> TrainConfig:
    """Defaults, then the keys of the recipe, file or `run` to resume, `--data` and each `--set`.

    Raises ConfigError naming the recipe, file or option at fault.
    """
    mapping, source = _recipe(config or "default") if run is None else _of_run(run)
    load_config(TrainConfig, mapping, source)  # so that its own mistakes bear its name
    given = [*settings] if data is None else [*settings, f"data.store={json.dumps(str(data))}"]
    chosen = load_config(TrainConfig, with_settings(mapping, given), "command line")
    all_of(chosen)  # their mistakes, too
    return chosen


def _of_run(run: Path) -> tuple[dict[str, Any], str]:
    from forensics.training.folder import CONFIG

    if not (run / CONFIG).exists():
        raise TrainingError(f"{run}: there is no run to go on with; start it without --resume")
    return read_yaml(run / CONFIG), str(run / CONFIG)


def _recipe(config: str) -> tuple[dict[str, Any], str]:
    """The keys of a shipped recipe, by name, or of a file; and what to call it in errors."""
    folder = resources.files("forensics.configs")
    names = sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )
    if config in names:
        text = folder.joinpath(f"{config}.yaml").read_text(encoding="utf-8")
        return parse_yaml(text, f"recipe {config}"), f"recipe {config}"
    path = Path(config)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return read_yaml(path), str(path)
    raise ConfigError(f"there is no recipe called {config!r}{nearest(config, names)}")


def _train(config: TrainConfig, data: Path, out: Path, *, resume: bool, quiet: bool) -> Outcome:
    from forensics.datasets.preparation import is_store
    from forensics.training.first import FOLDER
    from forensics.training.folder import require_free
    from forensics.training.learner import rehearse
    from forensics.training.material import Material

    *later, earliest = all_of(config)
    if not resume:  # before hours of cutting
        for depth in range(len(later) + 1):
            require_free(out.joinpath(*[FOLDER] * depth))
    for one in later:
        rehearse(one)  # hours before it begins
    if not is_store(data):
        rehearse(earliest)
    with TrainingScreen(quiet=quiet or not _first_process()) as screen:
        folder, store = _crops(config, data, out, screen)
        for one in later:
            Material(store, one, rank=0, world=int(os.environ.get("WORLD_SIZE", "1")))
        # Where the crops are, for a resume from whatever folder.
        config = replace(config, data=replace(config.data, store=str(folder.resolve())))
        with _stop_asked() as stop:
            return _in_turn(config, store, out, screen, stop, resume=resume)


def _in_turn(
    config: TrainConfig,
    store: CropStore,
    out: Path,
    screen: TrainingScreen,
    stop: Sequence[int],
    *,
    resume: bool,
) -> Outcome:
    """The run, and before it the one that its settings want before it."""
    from forensics.training.first import FOLDER, started
    from forensics.training.folder import CONFIG, LAST, announce
    from forensics.training.trainer import train

    def learn(config: TrainConfig, out: Path, *, resume: bool) -> Outcome:
        return train(
            config,
            store,
            out,
            resume=resume,
            on_step=screen.step,
            on_validation=screen.validated,
            on_autoencoders=screen.autoencoders,
            should_stop=lambda: bool(stop),
        )

    before = first_of(config)
    if before is None or (resume and (out / LAST).exists()):
        return learn(config, out, resume=resume)
    inner = out / FOLDER
    # Its state, or the settings of the run before it, which are there before its own.
    begun = resume and ((inner / LAST).exists() or (inner / FOLDER / CONFIG).exists())
    if begun:
        before = effective_config(None, None, [], run=inner)
    elif _first_process():
        announce(out, config)
    early = _in_turn(before, store, inner, screen, stop, resume=begun)
    if early.step < early.total:
        return early
    screen.note(f"{early.checkpoint}: AUC {early.best_auc:.3f}; the run goes on from it")
    return learn(started(config, out), out, resume=False)


def _first_process() -> bool:
    """Whether this is the one of several processes that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def _crops(
    config: TrainConfig, data: Path, out: Path, screen: TrainingScreen
) -> tuple[Path, CropStore]:
    """Where the crops are, and the crops."""
    from forensics.datasets.preparation import CROPS, is_store, prepare

    ready = is_store(data)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not ready:
        raise ConfigError(f"{data}: several processes train on crops: `deepfake extract` first")
    store = prepare(
        data,
        out,
        config.extract,
        seed=config.seed,
        workers=_cores(),
        # Self-blended fakes are made from reals, for validation, too.
        labels=("real",) if config.data.self_blended == 1 else ("real", "fake"),
        leave_out={name for one in all_of(config) for name in one.data.leave_out},
        on_progress=screen.cutting,
        on_note=screen.note,
    )
    return (data if ready else out / CROPS), store


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@contextmanager
def _stop_asked() -> Generator[list[int]]:
    """A list that fills when somebody asks the run to end: Ctrl-C, or a scheduler's SIGTERM.

    The step is finished and the state saved; who asks twice ends it at once.
    """
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(outcome: Outcome, out: Path) -> int:
    if outcome.unreadable:
        error_line(f"{outcome.unreadable} crops could not be read: {out}/skipped.csv names them")
    if outcome.best_step:
        emit(
            f"{outcome.checkpoint}: AUC {outcome.best_auc:.3f} of the validation videos, "
            f"step {outcome.best_step} of {outcome.total}\n"
        )
    if outcome.step < outcome.total:
        error_line(
            f"stopped after step {outcome.step} of {outcome.total}; go on with "
            f"`deepfake train --out {out} --resume`"
        )
        return INTERRUPTED
    return 0
