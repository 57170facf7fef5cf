"""Where the time of a step goes, and how near convolutions come to the best that this processor can do.

    python -m tests.benchmarks.profile_step [RECIPE] [--precision bf16] [--set KEY=VALUE]...

CPU seconds on one thread. The best is that of a 3x3 convolution of 256 channels on 64x64 pixels, forward and
backward, in the same process. Multiplications by zeros of the layer on 2x2 pixels do not count.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tests.benchmarks.against_reference import recipe_step

STEPS = 3
CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
PARTS = {
    "convolutions": ("convolution",),
    "padding, casts and copies": ("_pad", "pad2d", "copy_", "_to_copy", "aten::cat", "clone"),
    "norms": ("batch_norm", "vector_norm", "addcmul", "_Sums", "BatchNorm"),
    "matrix products": ("aten::mm", "aten::bmm", "addmm"),
    "optimizers and averages": ("adam", "Adam", "lerp"),
}
"""Parts of the names of operations; the first that fits counts. The rest is arithmetic and calls."""


class Convolutions(TorchDispatchMode):
    """CPU seconds and floating-point operations of all convolutions, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in CONVOLUTIONS:
            return func(*args, **(kwargs or {}))
        before = time.process_time()
        found = func(*args, **(kwargs or {}))
        self.seconds += time.process_time() - before
        weight, _, stride, padding = args[2:6] if func is CONVOLUTIONS[1] else args[1:5]
        # The only 4x4 convolutions of stride 1 without padding of their own are 7x7 ones on 2x2 pixels.
        zeros = (*weight.shape[2:], *stride, *padding) == (4, 4, 1, 1, 0, 0)
        flops = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=found)
        self.flops += flops * (49 / 64 if zeros else 1)
        return found


def best_rate(precision: str) -> float:
    """GFLOP/s of a large convolution, the best of several."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, weight = (
        torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        for shape in ((4, 256, 64, 64), (256, 256, 3, 3))
    )
    rates = []
    for _ in range(5):
        with Convolutions() as found:
            F.conv2d(x, weight, padding=1).sum().backward()
        rates.append(found.flops / found.seconds / 1e9)
    return max(rates)


def parts(events: Iterable[Any]) -> dict[str, float]:
    """Milliseconds of a step by part."""
    found: dict[str, float] = defaultdict(float)
    for event in events:
        names = (part for part, keys in PARTS.items() if any(key in event.key for key in keys))
        found[next(names, "other arithmetic, calls and allocation")] += (
            event.self_cpu_time_total / 1e3 / STEPS
        )
    return found


def main() -> None:
    """The parts of a step, then its convolutions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="munit")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    torch.set_num_threads(1)
    step, say = recipe_step(options.recipe, options.precision, *options.overrides), Console().print
    for _ in range(2):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            step()
    milliseconds = parts(found.key_averages())
    whole = sum(milliseconds.values())
    say(f"{options.recipe}, {options.precision}: {whole:.0f} ms for a step")
    for part, ms in sorted(milliseconds.items(), key=lambda item: -item[1]):
        say(f"  {part:40} {ms:8.1f} ms {100 * ms / whole:5.1f} %")
    with Convolutions() as convolutions:
        for _ in range(STEPS):
            step()
    rate, best = convolutions.flops / convolutions.seconds / 1e9, best_rate(options.precision)
    say(
        f"convolutions: {convolutions.flops / STEPS / 1e9:.1f} GFLOP in a step, {rate:.0f} GFLOP/s, "
        f"{100 * rate / best:.0f} % of {best:.0f} GFLOP/s"
    )


if __name__ == "__main__":
    main()
