"""Export a trained translator to a file for other programs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from i2ikit.errors import ExportError, I2IKitError, RunError
from i2ikit.exchange.about import About, Precision, Style, about_model
from i2ikit.exchange.agreement import (
    SIZES,
    TOLERANCE,
    culprit,
    example_images,
    example_sizes,
    largest_difference,
    reason_of,
)
from i2ikit.exchange.formats import FORMATS, content_of, runner_of, tensors_file
from i2ikit.exchange.official_export import official_files
from i2ikit.exchange.programs import StyleEncoder, Translation, traced
from i2ikit.model import Model
from i2ikit.registry import built_from
from i2ikit.run import Run, open_run
from i2ikit.translator import StyleEncoding
from i2ikit.writing import check_writable, replace_file, writing

__all__ = ["Exported", "export"]

Examples = Sequence[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Exported:
    """The files of an export.

    Args:
        files: the translation or the tensors; and the style encoder, if the translator has one.
        difference: largest difference from the translator, of values in [-1, 1] or of style codes; 0 for
            tensors.
    """

    files: tuple[Path, ...]
    difference: float


@torch.no_grad()
def export(
    run: Run | str | Path | None = None,
    file_format: str | None = None,
    *,
    to: str | None = None,
    source: str | None = None,
    out: str | Path | None = None,
    precision: Precision = "fp32",
    licence: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Export a trained translator: one direction as a program, or all of its weights.

    A program takes images (N, C, H, W) in [-1, 1] of any side and, unless the translator is deterministic,
    style codes (K, style_dim); its results are (K, C, H, W), style i with image i modulo N. The style encoder
    is a second program, images to style codes. Each file describes itself, see `about.About`. Before anything
    is written, the programs are compared with the translator, for several sizes and numbers of images.

    Args:
        run: as `i2ikit.load` takes it.
        file_format: "onnx", "pt2" (torch.export), "safetensors" (the weights of all generative networks) or
            "official" (a folder with the official repository's files); by default that of `out`, or ONNX.
        to: the domain to translate into.
        source: the domain of the inputs. If one or both are not given, the translator's first direction that
            fits is used.
        out: the file; RUN/export/RUN-a2b.onnx and the like by default. The style encoder's is beside it.
        precision: how the weights are stored; programs compute in fp32.
        licence: of the weights; only written into the file.
        progress: called with a text before each step that takes time.

    Raises:
        RunError: the run is not found, or the file cannot be written.
        ExportError: the translator cannot be exported as it is; the message names the component.
        WeightsError: a package that ONNX needs is not installed.
    """
    opened = open_run(run, "cpu")
    model = opened.model
    file_format = _format(file_format, out)
    direction = model.direction(source, to)
    label = f"-{direction}" if file_format in ("onnx", "pt2") else ""
    name = f"{opened.folder.resolve().name}{label}{'-best' * model.best}{'-fp16' * (precision == 'fp16')}"
    file = opened.folder / "export" / f"{name}.{file_format}" if out is None else Path(out)
    _check_options(file, file_format, precision, licence)
    check_writable(file.parent)
    if precision == "fp16":
        _check_halves(model)
    if file_format == "official":
        folder = opened.folder / "export" / f"{name}-official" if out is None else Path(out)
        return Exported(_written({folder / each: x for each, x in official_files(opened).items()}), 0.0)
    spec = built_from(model.translator)
    assert spec is not None
    about = about_model(model, spec.name, direction, _style(model, direction.to), precision, licence)
    if file_format == "safetensors":
        weights = about.model_copy(update={"graph": "weights", "source": None, "to": None})
        return Exported(_written({file: tensors_file(_tensors(model), precision, weights)}), 0.0)
    contents: dict[Path, bytes] = {}
    worst = 0.0
    if about.style.length and isinstance(model.translator, StyleEncoding):
        progress(f"Exporting the style encoder of {direction.to}, and comparing it with the trained one")
        beside = file.with_name(f"{file.stem}-style-encoder{file.suffix}")
        encoder = about.model_copy(update={"graph": "style encoder"})
        network = StyleEncoder(model.translator, direction.to)
        examples = _examples(model, direction.to, 0)
        contents[beside], worst = _checked(network, file_format, examples, "style", encoder)
        digest = hashlib.sha256(contents[beside]).hexdigest()
        style = about.style.model_copy(update={"encoder": beside.name, "encoder_sha256": digest})
        about = about.model_copy(update={"style": style})
    words = f"the translation {direction.source} to {direction.to}"
    progress(f"Exporting {words}, and comparing it with the trained one")
    examples = _examples(model, direction.source, about.style.length)
    translation = Translation(model.translator, direction)
    content, difference = _checked(translation, file_format, examples, "translation", about)
    return Exported(_written({file: content, **contents}), max(worst, difference))


def _written(contents: Mapping[Path, bytes]) -> tuple[Path, ...]:
    """Write files; the first one last, because a translation names its style encoder."""
    for path, content in reversed(list(contents.items())):
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    return tuple(contents)


def _format(file_format: str | None, out: str | Path | None) -> str:
    """The format asked for, or that of the file's name.

    Raises:
        RunError: the format is not known, or the file has the ending of another one.
    """
    known = ", ".join(FORMATS)
    ending = None if out is None else Path(out).suffix.removeprefix(".")
    if file_format is not None and file_format not in FORMATS:
        raise RunError(f"the format '{file_format}' is not known; choose one of {known}")
    if file_format == "official":  # a folder
        return file_format
    if (ending is not None and ending != (file_format or ending)) or ending not in (None, *FORMATS):
        wanted = f".{file_format}" if file_format else f"one of {known}"
        raise RunError(f"{out}: the name of the file should end in {wanted}")
    return file_format or ending or "onnx"


def _check_options(file: Path, file_format: str, precision: Precision, licence: str | None) -> None:
    """Refuse, before anything is computed, what would fail after it.

    Raises:
        RunError: the file cannot have this name, or the format has no place for an option.
    """
    if file_format == "official":
        if precision != "fp32" or licence is not None:
            raise RunError("the official layout has fp32 weights and no licence; leave these options out")
        return
    if file.is_dir():
        raise RunError(f"{file} is a folder; --out is the name of a file")
    if "\\" in file.name or not file.name.isprintable():
        raise RunError(f"the file cannot have the name {file.name!r}; give another one with --out")
    if licence is not None and not licence.isprintable():
        raise RunError("the licence is not text that can be printed")


def _check_halves(model: Model) -> None:
    """Raise ExportError if a weight is too large for fp16, in which it would be inf."""
    most = torch.finfo(torch.float16).max
    for name, x in _tensors(model).items():
        if x.is_floating_point() and x.numel() and x.abs().max() > most:
            value = x.abs().max().item()
            raise ExportError(
                f"{name} has the value {value:.3g}, above {most:.0f}; fp16 ends there: use fp32"
            )


def _style(model: Model, to: str) -> Style:
    """The style codes of translations into a domain, so far without the file of the style encoder."""
    here, there = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    sampled = model.translator.sample_style(3, to, here)
    usual = torch.equal(sampled, torch.randn(sampled.shape, generator=there))
    normal = usual and sampled.shape[1] > 0
    return Style(length=sampled.shape[1], distribution="standard normal" if normal else None)


def _tensors(model: Model) -> dict[str, Tensor]:
    networks = {role: model.translator.networks[role] for role in model.translator.generative}
    return {
        f"{role}.{name}": x for role, network in networks.items() for name, x in network.state_dict().items()
    }


def _examples(model: Model, domain: str, style_dim: int) -> Examples:
    """Inputs of a program of this domain, and styles if they have a length."""
    generator = torch.Generator().manual_seed(0)
    channels = model.images.channels[domain]
    examples: list[tuple[Tensor, ...]] = []
    for images, styles, height, width in example_sizes(model.images.size):
        x = example_images(images, channels, height, width, generator)
        codes = torch.randn(styles, style_dim, generator=generator)
        examples.append((x, codes) if style_dim else (x,))
    return examples


def _checked(
    module: Translation | StyleEncoder, file_format: str, examples: Examples, output: str, about: About
) -> tuple[bytes, float]:
    """The file of a program, and its largest difference from the module.

    Raises:
        ExportError: the module cannot be traced, or its program computes something else.
    """
    expected = [module.expected(*example) for example in examples]
    if not all(y.isfinite().all() for y in expected):
        raise RunError("the translation is not finite (NaN or inf), because training went wrong")
    try:
        program = traced(module, examples[0], module.shapes, about.precision)
        if program._guards_code:
            raise _refusal(module, file_format, examples, SIZES, about)
        content = content_of(program, file_format, module.inputs, output, about)
        runner = runner_of(content, file_format)
        found = [runner(example) for example in examples]
    except I2IKitError:
        raise
    except Exception as error:  # torch.export, torch.onnx and onnxruntime have many of their own
        raise _refusal(module, file_format, examples, reason_of(error), about) from error
    worst = max(largest_difference([y], z) for y, z in zip(expected, found, strict=True))
    if worst > TOLERANCE[about.precision]:
        reason = f"the results of the program differ by {worst:.2g}"
        raise _refusal(module, file_format, examples, reason, about)
    return content, worst


def _refusal(
    module: Translation | StyleEncoder, file_format: str, examples: Examples, reason: str, about: About
) -> ExportError:
    """The error, which names the component at fault."""
    networks = module.translator.networks
    found = culprit(networks, lambda example: module.expected(*example), examples, file_format)
    found = found or f"translator '{about.translator}': {reason}"
    return ExportError(
        f"the {about.graph} cannot be exported as {file_format}: {found}. Nothing was written. "
        "docs/export.md says what a component needs"
    )
