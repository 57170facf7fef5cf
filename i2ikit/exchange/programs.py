"""A translator as programs: graphs of torch operations, for images of any number and size."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from i2ikit.exchange.about import Precision
from i2ikit.translator import Direction, StyleEncoding, Translator

__all__ = ["StyleEncoder", "Translation", "quiet", "traced"]

IMAGE = {0: Dim("images", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
STYLE = {0: Dim("styles", min=1)}


class Translation(nn.Module):
    """A translator in one direction.

    Shapes: image (N, C, H, W) of any side, style (K, style_dim) -> (K, C of the target, H, W)
        Style i is given to image i modulo N. A deterministic translator has no style: K is N.
    Values: images in [-1, 1].
    """

    inputs: Sequence[str]
    shapes: Sequence[Mapping[int, Any]]

    def __init__(self, translator: Translator, direction: Direction) -> None:
        super().__init__()
        self.translator = translator
        self.direction = direction
        deterministic = translator.is_deterministic(direction.to)
        self.inputs, self.shapes = (
            (("image",), (IMAGE,)) if deterministic else (("image", "style"), (IMAGE, STYLE))
        )

    def forward(self, image: Tensor, style: Tensor | None = None) -> Tensor:
        """Translate."""
        source, to = self.direction
        if style is None:
            none = image.new_empty(image.shape[0], 0)
            return self.translator.translate(image, none, source=source, to=to)
        return self.translator.translate_with_each(image, style, source=source, to=to)

    def expected(self, image: Tensor, style: Tensor | None = None) -> Tensor:
        """The same by the translator's `translate`, with a copy of the image for each style."""
        if style is None:
            return self(image)
        source, to = self.direction
        images = image[torch.arange(len(style)) % len(image)]
        return self.translator.translate(images, style, source=source, to=to)


class StyleEncoder(nn.Module):
    """The style encoder of one domain.

    Shapes: image (N, C, H, W) of any side -> (N, style_dim)
    """

    inputs = ("image",)
    shapes = (IMAGE,)

    def __init__(self, translator: Translator, domain: str) -> None:
        super().__init__()
        self.translator = translator
        self.domain = domain

    def forward(self, image: Tensor) -> Tensor:
        """Encode."""
        assert isinstance(self.translator, StyleEncoding)
        return self.translator.encode_style(image, self.domain)

    def expected(self, image: Tensor) -> Tensor:
        """The same."""
        return self(image)


class _HalfWeights(nn.Module):
    """A module whose weights are stored in fp16 and cast to fp32 before each use."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # In a list, so that its own weights are not those of this module.
        self.behind = [module]
        self.names = {f"weight_{n}": name for n, name in enumerate(_tensors(module))}
        for n, tensor in enumerate(_tensors(module).values()):
            self.register_buffer(f"weight_{n}", tensor.half() if tensor.is_floating_point() else tensor)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Call the module with its weights as they are after rounding."""
        found = {name: getattr(self, stored) for stored, name in self.names.items()}
        weights = {name: t.float() if t.dtype == torch.float16 else t for name, t in found.items()}
        return torch.func.functional_call(self.behind[0], weights, inputs)


class _Used(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which memory the operations read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        tensors = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        self.places.update(tensor.untyped_storage().data_ptr() for tensor in tensors)
        return func(*args, **(kwargs or {}))


def _drop_unused(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Remove the weights that the module does not read, as of other domains; a program would hold them."""
    with _Used() as used:
        module(*inputs)
    for name, tensor in _tensors(module).items():
        if tensor.untyped_storage().data_ptr() not in used.places:
            owner, _, leaf = name.rpartition(".")
            delattr(module.get_submodule(owner), leaf)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def traced(
    module: nn.Module, inputs: Sequence[Tensor], shapes: Sequence[Any], precision: Precision
) -> ExportedProgram:
    """The program of a module in eval mode on the CPU, for any size of the dimensions in `shapes`.

    Args:
        inputs: an example.
        shapes: the dimensions of each input that vary, as torch.export takes them.

    Raises:
        Exception: of several kinds, if the module has no such program.
    """
    # In torch's own memory format: the strides of others depend on sizes, which would fix them.
    plain = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    _drop_unused(plain, [x[:1] for x in inputs])
    if precision == "fp16":
        plain, shapes = _HalfWeights(plain), (tuple(shapes),)
    # Without the assumption that a side of 1 is special: maps of small images are as small as that.
    with quiet(), symbolic_shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(plain, tuple(inputs), dynamic_shapes=tuple(shapes), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of this machine
    return program


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch.export and torch.onnx print, log and warn about, which is for their developers."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    unheard = contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO())
    with warnings.catch_warnings(), unheard[0], unheard[1]:
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
