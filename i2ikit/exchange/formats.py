"""The content of exported files, and how a program in such content is run, to compare it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence

import safetensors.torch
import torch
from torch import Tensor
from torch.export import ExportedProgram

from i2ikit.exchange.about import KEY, About, Precision
from i2ikit.exchange.programs import quiet
from i2ikit.onnx_session import open_session
from i2ikit.optional import optional_package

__all__ = ["FORMATS", "Runner", "content_of", "runner_of", "tensors_file"]

FORMATS = ("onnx", "pt2", "safetensors", "official")
PURPOSE = "export to ONNX"

Runner = Callable[[Sequence[Tensor]], list[Tensor]]
"""A program: inputs to outputs, on the CPU."""


def content_of(
    program: ExportedProgram, file_format: str, inputs: Sequence[str], output: str, about: About | None
) -> bytes:
    """A program as the content of an .onnx or a .pt2 file.

    Args:
        inputs, output: names of the tensors in an ONNX file.
        about: the metadata of the file.

    Raises:
        WeightsError: a package that ONNX needs is not installed.
        Exception: of several kinds, if the format cannot express the program.
    """
    if file_format == "pt2":
        file = io.BytesIO()
        extra = {} if about is None else {f"{KEY}.json": about.json_text()}
        with quiet():
            torch.export.save(program, file, extra_files=extra)
        return file.getvalue()
    onnx = optional_package("onnx", PURPOSE)
    optional_package("onnxscript", PURPOSE)
    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=list(inputs), output_names=[output]
        )
    assert made is not None
    model = made.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]  # of use to developers of torch.onnx only
    model.producer_name = KEY
    if about is not None:
        model.producer_version = about.versions[KEY]
        onnx.helper.set_model_props(model, {KEY: about.json_text()})
    content: bytes = model.SerializeToString()
    return content


def runner_of(content: bytes, file_format: str) -> Runner:
    """The program in the content of a file that `content_of` has just made.

    Raises:
        WeightsError: onnxruntime is not installed, or does not accept the model.
    """
    if file_format == "pt2":
        with quiet():
            module = torch.export.load(io.BytesIO(content)).module()

        def call(given: Sequence[Tensor]) -> list[Tensor]:
            with quiet():
                outputs = module(*given)
            return [outputs] if isinstance(outputs, Tensor) else list(outputs)

        return call
    session = open_session(content, PURPOSE)
    names = [each.name for each in session.get_inputs()]

    def run(given: Sequence[Tensor]) -> list[Tensor]:
        arrays = {name: x.numpy() for name, x in zip(names, given, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, arrays)]

    return run


def tensors_file(tensors: Mapping[str, Tensor], precision: Precision, about: About) -> bytes:
    """Tensors on the CPU, by `role.name`, as the content of a .safetensors file."""

    def stored(x: Tensor) -> Tensor:
        return (x.half() if precision == "fp16" and x.is_floating_point() else x).contiguous()

    # One line of sorted JSON: a reader of the header sees it next to the names of the tensors.
    text = json.dumps(json.loads(about.json_text()), sort_keys=True)
    return safetensors.torch.save({name: stored(x) for name, x in tensors.items()}, {KEY: text})
