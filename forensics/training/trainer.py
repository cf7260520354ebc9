"""The training loop, to be read from top to bottom.

    draws -> crops -> loss -> gradients -> weights -> their average -> validation -> checkpoint

It stops and goes on between any two steps as if it had not: what is shown and what is random in a
step follow from (seed, step), and `state` holds the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from forensics.checkpoint import save_checkpoint
from forensics.datasets.shards import CropStore
from forensics.errors import ForensicsError, TrainingError
from forensics.training import folder as files
from forensics.training.autoencoders import learn_autoencoders
from forensics.training.card import card_of
from forensics.training.config import TrainConfig
from forensics.training.depthwise import fast_depthwise
from forensics.training.learner import Learner
from forensics.training.logbook import Logbook
from forensics.training.material import Material
from forensics.training.process import add_up, any_of, facts_of, gathered, start_fabric
from forensics.training.progress import (
    OnAutoencoders,
    OnStep,
    OnValidation,
    Outcome,
    Pace,
    Progress,
    Validated,
)
from forensics.training.provenance import training_manifest
from forensics.training.samples import Batch
from forensics.training.state import Standing, read_standing, require_same
from forensics.training.validation import score_videos

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_ROW_EVERY = 10  # steps between two rows of metrics.csv
_LOST_WORKER = "DataLoader worker"  # how PyTorch's message begins; it has no error of its own

Row = dict[str, "float | int | str"]


def train(
    config: TrainConfig,
    store: CropStore,
    out: Path,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
    on_autoencoders: OnAutoencoders | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Train on the crops of the split `train`, choose by those of `val`, write into `out`.

    `resume` goes on from `out`/last.safetensors. When `should_stop` says so the run saves its state
    after the step and returns. Started by `torchrun`, every process calls this; the first writes.

    Raises ConfigError, ManifestError, CheckpointError and TrainingError, each one line; whatever
    ends a run, its last state stays and `resume` goes on from it.
    """
    run = _Run(config, store, out, resume=resume)
    run.on_step, run.on_validation, run.on_autoencoders = on_step, on_validation, on_autoencoders
    run.should_stop = should_stop or (lambda: False)
    return run.go()


class _Run:
    """One run in one process: what the steps share."""

    on_step: OnStep | None = None
    on_validation: OnValidation | None = None
    on_autoencoders: OnAutoencoders | None = None
    should_stop: Callable[[], bool]

    def __init__(self, config: TrainConfig, store: CropStore, out: Path, *, resume: bool) -> None:
        self.config, self.out, self.last = config, out, out / files.LAST
        self.fabric: Fabric = start_fabric(config)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        self.first = rank == 0
        drawing = self.autoencoders = out / files.AUTOENCODERS
        self.material = Material(store, config, rank=rank, world=world, autoencoders=drawing)
        self.total = self.material.total_steps
        self.learner = Learner(config, self.fabric, total=self.total)
        self.standing = Standing(step=0, config=asdict(config), crops_sha256=self.material.sha256)
        if resume:
            self.standing = read_standing(self.last)
            require_same(self.standing, config, self.material.sha256, self.last)
            self.learner.restore(self.last, self.standing)
            self.standing = replace(self.standing, config=asdict(config))
        elif self.first:
            files.start_folder(out, config, self._facts())

    def _facts(self) -> dict[str, Any]:
        return facts_of(self.fabric) | {
            "crops": len(self.material.store),
            "crops_sha256": self.material.sha256,
            "manifest_sha256": self.material.store.manifest_sha256,
            "steps": self.total,
        }

    def go(self) -> Outcome:
        """Steps until the end, or until something ends the run; then its state is kept."""
        self.logbook = Logbook(self.out, self.standing.step) if self.first else None
        try:
            if self._prepared():
                with fast_depthwise(self.learner.network):
                    self._steps()
            else:
                self._save()
        except ForensicsError:
            with suppress(ForensicsError):  # the reason itself may be a full disk
                self._save()
            raise
        except OSError as error:
            where = error.filename or self.out
            raise TrainingError(f"{where}: {error.strerror}; {self._way_on()}") from error
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the device's memory is too small for data.batch={self.config.data.batch}: halve "
                "it and double accumulate, in a new run"
            ) from error
        except RuntimeError as error:
            if _LOST_WORKER not in str(error):
                raise
            self._save()
            raise TrainingError(
                "a loader process was killed (by a lack of memory, most often: lower "
                f"data.workers with --set); {self._way_on()}"
            ) from error
        finally:
            if self.logbook:
                self.logbook.close()
        return Outcome(
            step=self.standing.step,
            total=self.total,
            best_auc=self.standing.best_auc,
            best_step=self.standing.best_step,
            checkpoint=self.out / files.BEST,
            unreadable=len(self.standing.unreadable),
        )

    def _prepared(self) -> bool:
        """Whether all is there to begin with, and not the run stopped while it was made."""
        return not self.config.data.reconstructed or learn_autoencoders(
            self.autoencoders,
            self.material.read_real,
            self.config,
            self.fabric,
            on_steps=self.on_autoencoders if self.first else None,
            should_stop=self.should_stop,
        )

    def _steps(self) -> None:
        with closing(self.material.batches(self.standing.step)) as stream:
            self._learn(stream)

    def _learn(self, stream: Iterator[Batch]) -> None:
        every = self.config.validation.every or self.material.epoch_steps
        pace = Pace()
        for step in range(self.standing.step, self.total):
            asked = time.perf_counter()
            batches = [self._readable(next(stream)) for _ in range(self.config.accumulate)]
            waited = time.perf_counter() - asked
            loss = self.learner.step(step, batches)
            images = sum(len(batch.labels) for batch in batches) * self.fabric.world_size
            pace.add(images, waited)
            told = self._told(step, loss, pace)
            if self.on_step and self.first:
                self.on_step(told)
            due = (step + 1) % every == 0 or step + 1 == self.total
            if due or (step + 1) % _ROW_EVERY == 0:
                row = self._row(told) | (self._validate() if due else {})
                if self.logbook:
                    self.logbook.add(row, draw=due)
                pace.start()
            stop = any_of(self.fabric, self.should_stop())
            if due or stop or (step + 1) % self.config.save_every == 0:
                self._save()
            if stop:
                return

    def _told(self, step: int, loss: float, pace: Pace) -> Progress:
        before = self.standing
        self.standing = replace(
            before, step=step + 1, loss_sum=before.loss_sum + loss, loss_steps=before.loss_steps + 1
        )
        return Progress(
            step=step + 1,
            total=self.total,
            epoch=step // self.material.epoch_steps,
            loss=loss,
            images_per_s=pace.images_per_s(),
            waiting=pace.waiting(),
        )

    def _readable(self, batch: Batch) -> Batch:
        """The batch, its failures noted. Raises TrainingError where too little of it could be read:
        smaller batches would let the processes drift apart."""
        self._note(dict(batch.failures))
        if len(batch.labels) < self.material.batch_images:
            row, reason = batch.failures[-1]
            raise TrainingError(
                f"ten crops in a row cannot be read, the last: {self.material.place_of(row)}: "
                f"{reason}; make them readable, then go on with --resume"
            )
        return batch

    def _note(self, failures: dict[int, str]) -> None:
        """Keep in mind which crops could not be read. Raises TrainingError above the limit."""
        new = {str(row): why for row, why in failures.items()}
        if new.keys() <= self.standing.unreadable.keys():
            return
        self.standing = replace(self.standing, unreadable={**self.standing.unreadable, **new})
        unreadable, limit = self.standing.unreadable, self.config.data.max_unreadable
        if self.logbook:
            places = {row: self.material.place_of(int(row)) for row in unreadable}
            self.logbook.skipped(unreadable, places)
        if len(unreadable) > limit:
            row, reason = next(iter(failures.items()))
            raise TrainingError(
                f"{len(unreadable)} crops cannot be read, data.max_unreadable is {limit}; one is "
                f"{self.material.place_of(row)}: {reason}; all are in {self.out / files.SKIPPED}; "
                "extract them again, or raise the limit with --set, then --resume"
            )

    def _row(self, told: Progress) -> Row:
        """The row of metrics.csv; its loss is the mean since the row before, over all processes."""
        standing = self.standing
        mean = add_up(self.fabric, torch.tensor(standing.loss_sum, dtype=torch.float64))
        self.standing = replace(standing, loss_sum=0.0, loss_steps=0)
        for failures in gathered(self.fabric, dict(standing.unreadable)):
            self._note({int(row): reason for row, reason in failures.items()})
        return {
            "step": told.step,
            "epoch": told.epoch,
            "loss": float(mean) / self.fabric.world_size / standing.loss_steps,
            "lr": self.learner.rate,
            "images_per_s": told.images_per_s,
            "waiting": told.waiting,
        }

    def _validate(self) -> Row:
        """Score the validation videos; the weights that tell them apart best so far are kept."""
        scores, failures = score_videos(
            self.learner.judged,
            self.material.validation(),
            self.material.validation_videos,
            forward=self.learner.judge,
            add_up=lambda sums: add_up(self.fabric, sums),
        )
        self._note(dict(failures))
        auc, loss, step = scores.auc(), scores.loss(), self.standing.step
        # The best of all so far, not of the last two; few videos give equal AUCs soon.
        best = (auc, -loss) > (self.standing.best_auc, -self.standing.best_loss)
        if best and self.first:
            # What the weights it started from had seen, nobody can say any more: nothing is aside.
            unseen = () if self.learner.images_before else self.config.data.leave_out
            manifest, sha256 = training_manifest(self.out, self.material.store, unseen)
            card = card_of(
                self.config,
                self.material.store,
                scores,
                self.learner.preprocessing,
                name=self.out.resolve().name,
                step=step,
                seen_before=self.learner.images_before,
                manifest=manifest,
                sha256=sha256,
            )
            save_checkpoint(self.out / files.BEST, self.learner.judged, card)
        if best:
            self.standing = replace(self.standing, best_auc=auc, best_loss=loss, best_step=step)
        videos = len(scores.labels)
        if self.on_validation and self.first:
            self.on_validation(Validated(step=step, auc=auc, loss=loss, videos=videos, best=best))
        best_auc = self.standing.best_auc
        return {"val_auc": auc, "val_loss": loss, "val_videos": videos, "best_auc": best_auc}

    def _save(self) -> None:
        """Save the state, unless the run was interrupted within a step."""
        if self.learner.whole and self.first:
            self.learner.save(self.last, replace(self.standing, scaler=self.learner.scaler()))

    def _way_on(self) -> str:
        if self.last.exists():
            return f"{self.last} holds the last state: go on with --resume"
        return "no state was saved yet: start again"
