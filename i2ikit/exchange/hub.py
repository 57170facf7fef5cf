"""Runs on the Hugging Face Hub: weights, recipe and a model card; no code is uploaded or downloaded."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from i2ikit.checkpoints import WEIGHTS_FILE
from i2ikit.errors import ExportError, FetchError, in_one_line, shortened
from i2ikit.exchange.card import PREFIX, model_card
from i2ikit.optional import optional_package
from i2ikit.resolved import RESOLVED, read_resolved, sealed
from i2ikit.run import Run, open_run

__all__ = ["address_of", "pull", "push"]

ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")
FILES = (WEIGHTS_FILE, RESOLVED)
"""What `pull` downloads; nothing else is needed, or read."""

GRID = "samples.png"
RECORDS_LEFT_OUT = ("weights_from", "changes")
PURPOSE = "the Hugging Face Hub"


def address_of(given: str | Path) -> str | None:
    """The address hf://ORG/NAME or hf://ORG/NAME@REVISION, also where a path has lost a slash; else None."""
    text = str(given)
    return text if ADDRESS.fullmatch(text) else None


def pull(address: str) -> Path:
    """Download the weights and the recipe of a run; the folder in the cache of huggingface_hub.

    Raises:
        FetchError: they are not there, or the Hub cannot be reached.
        WeightsError: huggingface_hub is not installed.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise FetchError(f"{address} is not an address as hf://ORG/NAME or hf://ORG/NAME@REVISION")
    hub = optional_package("huggingface_hub", PURPOSE, "hub")
    try:
        folder = hub.snapshot_download(found["repo"], revision=found["revision"], allow_patterns=list(FILES))
    except Exception as error:  # of the library, of HTTP, of the system
        raise FetchError(f"cannot download {PREFIX}{found['repo']}: {_reason(error)}") from error
    if missing := [name for name in FILES if not (Path(folder) / name).is_file()]:
        raise FetchError(
            f"{PREFIX}{found['repo']} is not a run of i2ikit: it has no {' and no '.join(missing)}"
        )
    return Path(folder)


def push(
    run: Run | str | Path | None,
    repo: str,
    *,
    licence: str | None = None,
    private: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> str:
    """Upload a run: weights.safetensors, resolved.toml, and a model card with samples and metrics.

    Paths of this machine are left out.

    Args:
        run: as `i2ikit.load` takes it; its last weights, or its best ones.
        repo: ORG/NAME on the Hub; it is created if it does not exist.
        licence: of the weights, by the Hub's identifier, such as "cc-by-4.0".
        private: whether a new repository is private.
        progress: called with a text before each step that takes time.

    Returns:
        The address of the page.

    Raises:
        ExportError: you are not logged in, or the Hub refuses the upload or cannot be reached.
        RunError: the run cannot be read.
        WeightsError: huggingface_hub is not installed.
    """
    if ADDRESS.fullmatch(f"{PREFIX}{repo}") is None or "@" in repo:
        raise ExportError(f"'{repo}' is not a name on the Hub; it has the form ORG/NAME")
    opened = open_run(run, "cpu")
    hub = optional_package("huggingface_hub", PURPOSE, "hub")
    contents = _contents(opened, repo, licence)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content)
        try:
            api = hub.HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            progress(f"Uploading {len(contents)} files to {repo}")
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"i2ikit: step {opened.step}")
        except Exception as error:  # of the library, of HTTP, of the system
            raise ExportError(
                f"cannot upload to {repo}: {_reason(error)}. `hf auth login` logs in to the Hub"
            ) from error
    return f"{api.endpoint}/{repo}"


def _reason(error: Exception) -> str:
    return shortened(in_one_line(error), 300)


def _contents(run: Run, repo: str, licence: str | None) -> dict[str, bytes]:
    """The files to upload, by name."""
    weights = run.folder / ("best.safetensors" if run.best else WEIGHTS_FILE)
    contents = {WEIGHTS_FILE: weights.read_bytes(), RESOLVED: _without_paths(run)}
    grids = sorted((run.folder / "samples").glob("step-*.png"))
    first = [path for path in grids if re.fullmatch(r"step-\d+\.png", path.name)]
    if first:
        contents[GRID] = first[-1].read_bytes()
    contents["README.md"] = model_card(run, repo, licence, GRID if first else None).encode()
    return contents


def _without_paths(run: Run) -> bytes:
    """resolved.toml without the folders of this machine."""
    table, _ = read_resolved(run.folder)
    kept = {key: value for key, value in table.items() if key not in RECORDS_LEFT_OUT}
    for section in ("data", "translator", "validation"):
        if section in kept:
            kept[section] = _shortened_paths(kept[section])
    return sealed(tomli_w.dumps(kept))


def _shortened_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shortened_paths(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened_paths(each) for each in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value
