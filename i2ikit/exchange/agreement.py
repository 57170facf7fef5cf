"""Whether an exported program computes what the translator does; if not, which component is at fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from i2ikit.errors import I2IKitError, in_one_line, shortened
from i2ikit.exchange.formats import content_of, runner_of
from i2ikit.exchange.programs import traced
from i2ikit.registry import built_from

__all__ = [
    "SIZES",
    "TOLERANCE",
    "culprit",
    "example_images",
    "example_sizes",
    "largest_difference",
    "reason_of",
]

SIZES = "what it computes depends on the number or the size of the images"
MOST_TEXT = 400
"""Characters of an error of torch.export or torch.onnx that a message shows."""

TOLERANCE = {"fp32": 1e-4, "fp16": 4e-2}
"""Largest difference of values in [-1, 1]; that of other values is relative to their size."""


def example_sizes(size: int) -> list[tuple[int, int, int, int]]:
    """Images, styles, height and width of the inputs to compare with, for images of `size` px in training.

    Odd and unequal sides, sides too small for some networks, and numbers of images and styles; the first two
    differ in all of them.
    """
    half = max(8, size // 2)
    return [
        (2, 4, half + 2, size + 6),
        (1, 3, size, size),
        (3, 3, size + 1, half),
        (1, 2, 21, 37),
        (2, 2, 9, 5),
    ]


def example_images(count: int, channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] with large and small parts, as photographs have."""
    coarse = torch.randn(count, channels, 3, 3, generator=generator)
    fine = torch.randn(count, channels, height, width, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * fine).tanh()


def largest_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Of all elements, in relation to the largest value if that is above 1.

    It is inf if shapes differ, or if a value found is not finite.
    """
    if [x.shape for x in expected] != [y.shape for y in found]:
        return float("inf")
    differences = [0.0]
    for x, y in zip(expected, found, strict=True):
        if not y.isfinite().all():
            return float("inf")
        scale = max(1.0, x.abs().max().item()) if x.numel() else 1.0
        differences.append((x.double() - y.double()).abs().max().item() / scale if x.numel() else 0.0)
    return max(differences)


def reason_of(error: Exception) -> str:
    """Why torch.export, torch.onnx or onnxruntime refused a program, in one line."""
    while isinstance(error.__cause__, Exception):  # torch.onnx wraps the error that says what it is about
        error = error.__cause__
    text = in_one_line(error)
    for advice in ("For more information, run with", "The error above occurred", "(Refer to the full stack"):
        kept, _, rest = text.partition(advice)
        text = f"{kept}{rest[rest.find(' - ') :]}" if " - " in rest else kept
    return shortened(text.strip(), MOST_TEXT)


@dataclass(frozen=True)
class _Call:
    """Inputs and outputs of a module."""

    inputs: tuple[Tensor, ...]
    outputs: list[Tensor]


def culprit(
    networks: nn.Module,
    run: Callable[[Sequence[Tensor]], object],
    examples: Sequence[Sequence[Tensor]],
    file_format: str,
) -> str | None:
    """The innermost component that cannot be exported by itself, and why; None if each one can.

    Args:
        networks: of a translator, built from a recipe, on the CPU.
        run: what calls them, such as a translation.
        examples: inputs of `run`, the first two of different sizes.
    """
    calls = _recorded(networks, run, examples)
    specs = {module: built_from(module) for module in calls}
    first: dict[str, nn.Module] = {}
    for module, spec in specs.items():
        first.setdefault(repr(spec), module)
    # One of each first: most components fail everywhere. Some do so only for the sizes in one place.
    for module in dict.fromkeys([*first.values(), *calls]):
        spec = specs[module]
        if spec is not None and (reason := _fails(module, calls[module], file_format)):
            return f"{spec.kind.removesuffix('s')} '{spec.name}': {reason}"
    return None


def _recorded(
    networks: nn.Module, run: Callable[[Sequence[Tensor]], object], examples: Sequence[Sequence[Tensor]]
) -> dict[nn.Module, list[_Call]]:
    """The first call of each component for each example, innermost components first."""
    depth = {module: name.count(".") for name, module in networks.named_modules() if built_from(module)}
    calls: dict[nn.Module, list[_Call]] = {
        module: [] for module in sorted(depth, key=depth.__getitem__, reverse=True)
    }
    for number, example in enumerate(examples, 1):

        def record(module: nn.Module, inputs: Any, outputs: Any, number: int = number) -> None:
            if len(calls[module]) < number:
                calls[module].append(
                    _Call(inputs, [outputs] if isinstance(outputs, Tensor) else list(outputs))
                )

        hooks = [module.register_forward_hook(record) for module in calls]
        try:
            run(example)
        finally:
            for hook in hooks:
                hook.remove()
    return {module: found for module, found in calls.items() if len(found) == len(examples)}


def _fails(module: nn.Module, calls: Sequence[_Call], file_format: str) -> str | None:
    """Why a module alone cannot be exported, or how far its program is from it; None if it is right."""
    first = calls[0].inputs
    shapes = zip(*([x.shape for x in call.inputs] for call in calls), strict=True)
    varying = [
        {dim: Dim.DYNAMIC for dim, sizes in enumerate(zip(*each, strict=True)) if len(set(sizes)) > 1}
        for each in shapes
    ]
    names = [f"input_{n}" for n in range(len(first))]
    try:
        program = traced(module, first, varying, "fp32")
        runner = runner_of(content_of(program, file_format, names, "output", None), file_format)
        worst = max(largest_difference(call.outputs, runner(call.inputs)) for call in calls)
    except I2IKitError:
        raise
    except Exception as error:  # torch.export, torch.onnx and onnxruntime have many of their own
        return reason_of(error)
    if worst > TOLERANCE["fp32"]:
        return f"its results differ by {worst:.2g}"
    spec = built_from(module)
    # Other components have size requirements, which are conditions as well; norms take maps of any size.
    norm = spec is not None and spec.kind == "norms"
    conditions = [guard for guard in program._guards_code if norm and " == " not in guard]
    bounded = any(bounds.upper < 2**40 for bounds in program.range_constraints.values())
    return SIZES if conditions or bounded else None
