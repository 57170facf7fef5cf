"""An exported translator in onnxruntime beside torch: `python -m tests.benchmarks.exported`.

Both translate one 256 px image in 16 styles, in turns, so that whatever else the machine does meets both alike. The
times are the medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from i2ikit.exchange.export import export
from i2ikit.exchange.onnx_model import open_onnx
from i2ikit.model import Model
from i2ikit.recipe import load_recipe
from i2ikit.run import Run
from tests.tiny import untrained

STYLES = 16
SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", nargs="+", default=["munit-paper", "munit"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    say = Console(width=240).print
    say("| recipe | weights | file, MB | torch fp32, s | torch bf16, s | onnxruntime, s |")
    say("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.recipes:
            run = Run(untrained(load_recipe(name, [f"data.size={SIDE}"]), Path(folder) / name), "cpu")
            for precision in ("fp32", "fp16"):
                file = export(run, "onnx", precision=precision).files[0]  # type: ignore[arg-type]
                times = measured(run.model, open_onnx(file, "cpu"), options.rounds)
                shown = " | ".join(f"{seconds:.2f}" for seconds in times)
                say(f"| {name} | {precision} | {file.stat().st_size / 1e6:.1f} | {shown} |")


def measured(trained: Model, exported: Model, rounds: int) -> list[float]:
    """Median seconds of torch in fp32, torch in bf16, and onnxruntime."""
    x = torch.rand(trained.images.channels["a"], SIDE, SIDE) * 2 - 1
    calls: list[Callable[[], object]] = [
        lambda: trained.translate(x, styles=STYLES),
        lambda: trained.translate(x, styles=STYLES, precision="bf16"),
        lambda: exported.translate(x, styles=STYLES),
    ]
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if turn:  # the first one is slower
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


if __name__ == "__main__":
    main()
