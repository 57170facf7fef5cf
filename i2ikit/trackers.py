"""The trackers of a run: curves, sample grids and the recipe, for TensorBoard and other programs."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import random
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from PIL import Image

from i2ikit.errors import RunError, in_one_line
from i2ikit.paths import pasted
from i2ikit.translator import Direction
from i2ikit.writing import replace_file, writing

__all__ = ["Trackers"]

PROJECT = "i2ikit"
TENSORBOARD = "tensorboard"
ID_FILE = "tracking-id"


class Trackers:
    """The trackers of one run, by their classes in Accelerate.

    A tracker that fails while training gets nothing more, and a warning says so. TensorBoard writes to the
    run folder: what its disk refuses ends training, as it does for the other files there.

    Args:
        names: those of training.trackers; empty in all but the main process, because Accelerate starts some
            trackers in every process.
        folder: the run folder; the run is named after it.
        first: the first step; TensorBoard drops what it has of later steps, because they are logged again.
        config: the recipe, by dotted key. TensorBoard does not get it: it would write a file for each value.

    Raises:
        RunError: a tracker cannot start.
    """

    def __init__(self, names: Collection[str], folder: Path, first: int, config: Mapping[str, Any]) -> None:
        self.path = folder / TENSORBOARD
        self._say: Callable[[str], None] = lambda text: None
        self._running: dict[str, Any] = {}
        plain = {k: v if isinstance(v, int | float | str) else json.dumps(v) for k, v in config.items()}
        try:
            for name in names:
                with _starting(name, names, folder):
                    self._running[name] = _started(name, folder, first, plain)
        except BaseException:
            self._close_quietly()
            raise

    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Log values of a step.

        Raises:
            RunError: TensorBoard's files cannot be written.
        """
        for name, tracker in list(self._running.items()):
            with self._guarded(name):
                tracker.log(dict(values), step)

    def show(self, pictures: Mapping[Direction, Image.Image], step: int) -> None:
        """Log the sample grids of a step.

        Raises:
            RunError: TensorBoard's files cannot be written.
        """
        for name, tracker in list(self._running.items()):
            with self._guarded(name):
                for direction, picture in pictures.items():
                    _show(tracker, f"samples/{direction}", picture, step)

    @contextlib.contextmanager
    def closing(self, say: Callable[[str], None]) -> Iterator[None]:
        """Close the trackers after the block, without hiding an error of the block.

        Args:
            say: prints a warning.
        """
        self._say = say
        try:
            with _threads_report_to_the_writer():
                yield
        except BaseException:
            self._close_quietly()
            raise
        self._close()

    def _close_quietly(self) -> None:
        with contextlib.suppress(Exception):
            self._close()

    def _close(self) -> None:
        with contextlib.ExitStack() as closing:  # it closes the others too if one fails
            for name in self._running:
                closing.callback(self._finish, name)

    def _finish(self, name: str) -> None:
        with self._guarded(name), _quiet(name):
            # By trackio itself: otherwise it would finish, and print so, once more when Python exits.
            finished = importlib.import_module(name) if name == "trackio" else self._running[name]
            finished.finish()

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Let TensorBoard's errors through, and leave out another tracker that fails."""
        if name == TENSORBOARD:
            with writing(self.path):
                yield
            return
        try:
            with _generators_restored():
                yield
        except Exception as error:  # each tracker raises its own
            del self._running[name]
            reason = in_one_line(error)
            self._say(f"warning: the tracker '{name}' failed and gets nothing more of this run: {reason}")


@contextlib.contextmanager
def _starting(name: str, names: Collection[str], folder: Path) -> Iterator[None]:
    """Name the tracker that cannot start."""
    if name == TENSORBOARD:
        with writing(folder / TENSORBOARD):
            yield
        return
    try:
        with _generators_restored(), _quiet(name):
            yield
    except RunError:  # the run folder, not the tracker
        raise
    except Exception as error:  # each tracker raises its own
        others = json.dumps([other for other in names if other != name])
        without = pasted("i2ikit", "resume", folder, "--set", f"training.trackers={others}")
        raise RunError(
            f"the tracker '{name}' cannot start ({in_one_line(error)}); set up its account or server and "
            f"resume the run, or leave it out: {without}"
        ) from error


def _started(name: str, folder: Path, first: int, config: Mapping[str, Any]) -> Any:
    run = folder.resolve().name
    own_id = _own_id(folder) if name in ("wandb", "trackio") else ""
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"run_name": TENSORBOARD, "logging_dir": folder, "purge_step": first + 1},
        "wandb": {"name": run, "id": own_id, "resume": "allow", "dir": folder},
        "trackio": {"name": run},
        "aim": {"run_name": run, "logging_dir": folder.parent},
        "mlflow": {"experiment_name": PROJECT, "run_name": run},
        # It would otherwise replace the task before, and copy what TensorBoard gets.
        "clearml": {"task_name": run, "reuse_last_task_id": False, "auto_connect_frameworks": False},
        "dvclive": {"dir": folder / "dvclive", "resume": first > 0},
        "swanlab": {"name": run},
    }
    tracker = LOGGER_TYPE_TO_CLASS[name](**{"run_name": PROJECT, **options.get(name, {})})
    tracker.start()
    match name:
        case "tensorboard":
            pass
        case "trackio":
            tracker.run.id = own_id  # it identifies a run; names may repeat, and `trackio.init` takes no id
            tracker.run.config.update(config)  # Accelerate would add an argument of its own
        case "comet_ml":
            tracker.tracker.set_name(run)
            tracker.store_init_configuration(dict(config))
        case _:
            tracker.store_init_configuration(dict(config))
    return tracker


def _own_id(folder: Path) -> str:
    """What identifies the run in trackers that continue runs; another folder of the same name has another."""
    file = folder / ID_FILE
    if not file.exists():
        replace_file(file, secrets.token_hex(8).encode())
    with writing(file):
        return file.read_text("ascii", errors="replace").strip()


def _show(tracker: Any, key: str, picture: Image.Image, step: int) -> None:
    """Log a picture in the form that the tracker takes."""
    match tracker.name:
        case "tensorboard":
            tracker.log_images({key: np.asarray(picture)[None]}, step, dataformats="NHWC")
        case "wandb" | "swanlab":
            tracker.log_images({key: [picture]}, step)
        case "aim" | "clearml":
            tracker.log_images({key: picture}, step)
        case "trackio":
            tracker.log({key: importlib.import_module("trackio").Image(picture)}, step)
        case "comet_ml":
            tracker.tracker.log_image(picture, key, step=step)
        case "mlflow":
            importlib.import_module("mlflow").log_image(picture, f"{key}-{step:06d}.png")
        case "dvclive":
            tracker.tracker.step = step
            tracker.tracker.log_image(f"{key}/{step}.png", picture)


@contextlib.contextmanager
def _generators_restored() -> Iterator[None]:
    """Restore the generators of Python and numpy: mlflow draws a name, others their waiting times."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _quiet(name: str) -> contextlib.AbstractContextManager[object]:
    """Drop what trackio prints to stdout when it starts and ends."""
    return contextlib.redirect_stdout(io.StringIO()) if name == "trackio" else contextlib.nullcontext()


@contextlib.contextmanager
def _threads_report_to_the_writer() -> Iterator[None]:
    """Print no traceback of TensorBoard's thread: its error is raised by the next `write`."""
    before = threading.excepthook

    def hook(found: threading.ExceptHookArgs) -> None:
        if getattr(found.thread, "exception", None) is not found.exc_value:
            before(found)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
