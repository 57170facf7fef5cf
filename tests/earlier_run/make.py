"""Make the run folder that `test_earlier_run.py` opens, with the i2ikit that is installed.

    python -m tests.earlier_run.make tests/earlier_run

run/         a tiny MUNIT, stopped after 2 of 4 steps
expected/    what the same version makes of it: the losses of steps 3 and 4, and a translation

It uses the command line only, so that it also works with the versions to come. The run in this folder
was made by commit 74f6674, before runs became objects.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.image_files import make_folders
from tests.tiny import TINY

OPTIONS = (
    *("data.name=folders", "data.root=data", *TINY),
    *("training.precision=fp32", "training.batch_size=2", "training.log_every=1"),
    *("training.sample_every=0", "optimizer.decay=none"),
    # Smaller than in other tests: these files are in the repository.
    *("translator.content_encoder.width=2", "translator.style_encoder.width=2", "data.size=32"),
    "translator.style_encoder.num_downsample=2",
    "translator.discriminator={name='multiscale-patch', width=2, num_layers=3, num_scales=1}",
)
IMAGE = "data/testA/0.png"


def i2ikit(*arguments: str, cwd: Path) -> None:
    subprocess.run([sys.executable, "-m", "i2ikit", *arguments], cwd=cwd, check=True)


def make(folder: Path) -> None:
    """Train twice, for 2 and for 4 steps; the first one is then said to have 4."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_folders(work / "data")
        for run, steps in (("run", 2), ("whole", 4)):
            options = [word for text in (*OPTIONS, f"training.steps={steps}") for word in ("--set", text)]
            i2ikit("run", "munit", "--out", run, *options, cwd=work)
        i2ikit("translate", "run", IMAGE, "--styles", "2", "--out", "expected", cwd=work)
        resolved = work / "run" / "resolved.toml"
        resolved.write_text(resolved.read_text().replace("steps = 2\n", "steps = 4\n"))
        for file in (work / "expected").iterdir():
            if "-style-" in file.name:
                file.rename(file.with_name(f"0-style-{file.name.split('-style-')[1][0]}.png"))
            else:
                file.unlink()
        shutil.copyfile(work / "whole" / "metrics.jsonl", work / "expected" / "metrics.jsonl")
        for left_out in ("samples", "tensorboard", "translations"):
            shutil.rmtree(work / "run" / left_out, ignore_errors=True)
        for made in ("run", "expected"):
            shutil.rmtree(folder / made, ignore_errors=True)
            shutil.copytree(work / made, folder / made)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
