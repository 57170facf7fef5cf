"""One training run while it trains: how far it has come, and what it writes when that is due.

Work that is not collective runs in `stops.noted()`: if it fails in one process, all processes learn of it
where they meet before the next step, and stop together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from i2ikit.checkpoints import BEST_FILE, WEIGHTS_FILE, check_finite, save_checkpoint, save_weights
from i2ikit.data.dataset import Dataset
from i2ikit.errors import RunError
from i2ikit.health import health
from i2ikit.interruptions import FAILED, Interruptions, how_to_go_on
from i2ikit.processes import ALONE, Processes
from i2ikit.recipe import Recipe
from i2ikit.runlog import RunLog, logged
from i2ikit.sampling import sample_files, save_samples
from i2ikit.state import TrainingState
from i2ikit.trackers import Trackers
from i2ikit.training import learning_rates
from i2ikit.translator import Translator
from i2ikit.validation import Validator
from i2ikit.weights_file import read_weights
from i2ikit.writing import writing

__all__ = ["Probe", "TrainingRun", "due"]

Probe = Callable[[Translator], Mapping[str, float]]
"""Called with the EMA weights whenever samples are written; returns values for the log."""


@dataclass
class TrainingRun:
    """One training run in one of its processes.

    Args:
        done: number of steps done.
        saved: the step of the newest checkpoint; 0 without one.
        is_between_steps: whether the state is that of the last finished step.
    """

    recipe: Recipe
    data: Dataset
    folder: Path
    group: Processes
    state: TrainingState
    probe: Probe | None
    validator: Validator | None
    log: RunLog
    trackers: Trackers
    report: Callable[[], object]
    done: int
    saved: int
    is_between_steps: bool = True
    stops: Interruptions = field(default_factory=Interruptions)

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the validator has ended training early."""
        return self.done == self.recipe.training.steps or self.ends_early

    @property
    def ends_early(self) -> bool:
        """Whether the validator ends training."""
        return self.validator is not None and self.validator.has_ended(self.state.validation)

    def must_validate(self) -> bool:
        """Whether a validation is due after the steps done."""
        if self.validator is None:
            return False
        return self.done == self.recipe.training.steps or due(self.done, self.validator.section.every)

    def log_losses(self) -> None:
        """Log the means of the losses since the last line. Collective."""
        means = self.state.losses.means(self.group)
        with self.stops.noted():
            line = self.log.losses(self.done, means, learning_rates(self.state, self.done - 1))
            self.trackers.write({k: v for k, v in line.items() if "/" in k}, self.done)
            self.state.losses.is_logged = True

    def look(self) -> None:
        """Run the probe, say how it goes, and write samples; in the main process, while the others wait."""
        if not self.group.is_main or self.stops.error is not None:
            return  # resuming does it, so that the lines of the log keep their order
        with self.stops.noted():
            if self.probe is not None:
                self._log(self.probe(self.state.ema))
            if self.done:
                self.say_how_it_goes()
            self.write_samples()  # samples that are there show that nothing of this step is missing
            if not self.is_over:  # after that, there is still a verdict to come
                self.report()

    def say_how_it_goes(self) -> None:
        """Print what the log shows, and what to try if something looks wrong."""
        found = health(logged(self.folder), self.recipe.training.steps)
        self.log.say(f"step {self.done}/{found.steps}: {found}")
        for fault in found.faults:
            if not (fault.is_certain and self.is_over):  # the verdict says it
                self.log.say(f"  warning: {fault}")

    def has_samples(self) -> bool:
        """Whether all samples of the last finished step are there."""
        return all(file.exists() for file in sample_files(self.state.ema, self.done, self.folder).values())

    def write_samples(self) -> None:
        """Write the samples of the last finished step."""
        with writing(self.folder / "samples"):
            grids = save_samples(self.state.ema, self.data, self.recipe.seed, self.done, self.folder)
        self.trackers.show(grids, self.done)

    def validate(self) -> bool:
        """Measure the averaged weights, and keep them if they are the best so far. Collective.

        Returns:
            Whether that succeeded; if not, the processes may disagree on whether training is over.
        """
        assert self.validator is not None
        state, before = self.state, (self.state.validation, self.state.validated)
        with self.log.paused():
            found = self.validator(state.ema, self.done, state.validation)
        is_best = found.state.step == self.done
        if is_best:
            check_finite(state, self.done, self.folder, self.group)
        state.validation, state.validated = found.state, self.done
        with self.stops.noted():
            try:
                if is_best and self.group.is_main:
                    save_weights(state.ema, self.data.images, self.done, self.folder, BEST_FILE)
                self._log(found.values)
                if found.line:
                    self.log.say(f"step {self.done}: {found.line}")
                for remark in found.remarks:
                    self.log.remark(self.done, remark)
            except BaseException:
                state.validation, state.validated = before  # resuming validates again
                raise
        return self.group.most(self.stops.code) != FAILED

    def _log(self, values: Mapping[str, float]) -> None:
        """Log values of this step."""
        if self.log.write({"step": self.done, **values}):
            self.trackers.write(values, self.done)

    def restore_weights(self) -> None:
        """Write the file of weights again if it is missing or damaged; in the main process."""
        if not self.group.is_main:
            return
        with self.stops.noted():
            try:
                read_weights(self.folder / WEIGHTS_FILE)
            except (RunError, OSError):
                save_weights(self.state.ema, self.data.images, self.done, self.folder)
                self.log.say(
                    f"{WEIGHTS_FILE} was missing or damaged, and is written again from the checkpoint of "
                    f"step {self.done}"
                )

    def save(self) -> None:
        """Save weights and a checkpoint. Collective.

        All processes hold the same, but for local norms and kept tensors.

        Raises:
            TrainingError: they are not finite; raised in all processes.
        """
        check_finite(self.state, self.done, self.folder, self.group)
        self._save_with(self.group)

    @contextlib.contextmanager
    def saving_after_errors(self) -> Iterator[None]:
        """After an error in the block, save the last finished step, and say what is saved and what is lost.

        It may have come in the middle of a step, or while other processes wait for this one.
        """
        try:
            yield
        except BaseException as failure:
            # The others are not needed if they hold nothing of their own.
            is_enough = self.group.count == 1 or (self.group.is_main and not any(self.state.kept.values()))
            is_unsaved = self.is_between_steps and self.done > self.saved
            if is_enough and is_unsaved and not self.state.newly_not_finite():
                self._save_with(ALONE)
            failure.add_note(how_to_go_on(self.folder, self.done, self.saved))
            raise

    def _save_with(self, group: Processes) -> None:
        is_saved = False
        with self.stops.noted():
            if group.is_main:
                save_weights(self.state.ema, self.data.images, self.done, self.folder)
        with self.stops.noted():  # it first gathers: collective
            save_checkpoint(self.folder, self.done, self.state, self.recipe.training.keep, group)
            is_saved = True
        if group.most(int(not is_saved)) == 0:  # only the main process writes
            self.saved = self.done


def due(step: int, every: int) -> bool:
    """Whether something is due after this many steps; never if `every` is 0."""
    return every > 0 and step % every == 0
