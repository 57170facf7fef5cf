"""An exported ONNX file as a model: the same use as a run, without its folder and without its packages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from torch import Tensor

from i2ikit.errors import ExportError, I2IKitError, RunError, in_one_line
from i2ikit.exchange.about import KEY, About
from i2ikit.model import Model
from i2ikit.onnx_session import open_session
from i2ikit.optional import optional_package
from i2ikit.translator import Direction, ImageSpec, Phase, Translator

__all__ = ["open_onnx"]

PURPOSE = "using an ONNX file"
PIXELS_AT_ONCE = 2**20
"""16 translations of 256 x 256 pixels. A program encodes the image again for each part of its styles."""


def open_onnx(file: Path, device: str | torch.device | None = None) -> Model:
    """Open a translation that `i2ikit export` has written.

    Args:
        file: the .onnx file; that of its style encoder should be beside it.
        device: "cpu" or "cuda"; by default a GPU if onnxruntime can use one.

    Raises:
        RunError: there is no such file.
        ExportError: it was not written by i2ikit, or cannot be run on the device.
        WeightsError: onnxruntime is not installed, or the file is damaged.
    """
    if file.exists() and not file.is_file() and not file.is_dir():
        raise RunError(f"{file} is not a file")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}") from error
    providers = _providers(device)
    try:
        session = open_session(content, PURPOSE, providers)
    except I2IKitError as error:
        raise type(error)(str(error).replace("the content", str(file), 1)) from error
    about = _about(session, file)
    if about.graph != "translation" or about.source is None or about.to is None:
        raise ExportError(f"{file} is a {about.graph}, not a translation; give the translation beside it")
    translator = OnnxTranslator(session, about, file, providers)
    return Model(
        path=file,
        translator=translator,
        images=translator.images,
        device=torch.device("cpu"),  # of the tensors; onnxruntime moves them
        step=about.step,
        sha256=about.weights_sha256,
        best=about.best,
        dataset=about.dataset,
        precisions=("fp32",),
    )


def _providers(device: str | torch.device | None) -> list[str]:
    """Names of onnxruntime's implementations for a device.

    Raises:
        ExportError: there is none.
    """
    available = optional_package("onnxruntime", PURPOSE).get_available_providers()
    name = "cuda" if device is None else str(device).partition(":")[0]
    gpu = "CUDAExecutionProvider"
    if name not in ("cpu", "cuda") or (name == "cuda" and device is not None and gpu not in available):
        here = "cpu and cuda" if gpu in available else "cpu"
        raise ExportError(f"device '{device}' cannot be used by this onnxruntime; it has {here}")
    return [gpu, "CPUExecutionProvider"] if name == "cuda" and gpu in available else ["CPUExecutionProvider"]


def _about(session: Any, file: Path) -> About:
    """The metadata of a file.

    Raises:
        ExportError: it has none, or does not match its graph.
    """
    try:
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        inputs = {each.name: list(each.shape[1:2]) for each in session.get_inputs()}
    except Exception as error:  # of onnxruntime, and of text that is not UTF-8
        raise ExportError(f"{file} cannot be read: {in_one_line(error)}") from error
    if text is None:
        raise ExportError(f"{file} was not exported by i2ikit: it has no metadata '{KEY}'")
    try:
        about = About.model_validate_json(text)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(map(str, problem["loc"]))] if part)
        raise ExportError(f"{file}: its metadata '{KEY}' cannot be used: {where}{problem['msg']}") from error
    channels = {domain.name: domain.channels for domain in about.domains}
    read = about.source if about.graph == "translation" else about.to
    wanted = {"image": [channels.get(str(read))]}
    if about.graph == "translation" and about.style.length:
        wanted["style"] = [about.style.length]
    if not {about.source, about.to} <= channels.keys() or about.source == about.to:
        raise ExportError(f"{file}: its metadata '{KEY}' names no direction between two of its domains")
    if inputs != wanted:
        raise ExportError(f"{file}: its metadata '{KEY}' does not match its graph: {wanted}, but {inputs}")
    return about


class OnnxTranslator(Translator):
    """A translator in one direction whose networks onnxruntime runs; it cannot be trained.

    Args:
        session: the translation.
        about: its metadata.
        file: where it is; the style encoder is beside it.
        providers: see `open_session`.
    """

    generative = ()
    adversarial = ()

    def __init__(self, session: Any, about: About, file: Path, providers: Sequence[str]) -> None:
        images = ImageSpec({domain.name: domain.channels for domain in about.domains}, about.size)
        super().__init__(images, {}, {})
        assert about.source is not None
        assert about.to is not None
        self.directions = (Direction(about.source, about.to),)
        self.session = session
        self.about = about
        self.file = file
        self.providers = providers
        self._encoder: Any = None

    def phases(self) -> tuple[Phase, ...]:
        """None: it cannot be trained."""
        return ()

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Translate x: (N, C, H, W), (N, style_dim) -> (N, C of `to`, H, W)."""
        given = {"image": x, "style": style} if self.about.style.length else {"image": x}
        shape = (len(style), self.images.channels[to], *x.shape[2:])
        return self._run(self.session, given, self.file, shape)

    def translate_with_each(self, x: Tensor, styles: Tensor, *, source: str, to: str) -> Tensor:
        """As `translate` of copies of x (1, C, H, W), which the program makes itself."""
        parts = torch.split(styles, max(1, PIXELS_AT_ONCE // x[0, 0].numel()))
        return torch.cat([self.translate(x, part, source=source, to=to) for part in parts])

    def style_length(self, to: str) -> int:
        """As the file says."""
        return self.about.style.length

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """n random codes: (n, style_dim).

        Raises:
            ExportError: their distribution is not known.
        """
        style = self.about.style
        if style.length and style.distribution is None:
            raise ExportError(
                f"{self.file} does not say how random styles are distributed; give exemplars or codes"
            )
        return torch.randn(n, style.length, generator=generator)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        """Style codes of images of the target domain: (N, C, H, W) -> (N, style_dim).

        Raises:
            RunError: the translator has no style encoder.
            ExportError: its file is missing, or is another one.
        """
        style = self.about.style
        if style.encoder is None:
            raise RunError(f"{self.file}: its translator has no style encoder and cannot follow exemplars")
        beside = self.file.with_name(style.encoder)
        if self._encoder is None:
            try:
                if beside.exists() and not beside.is_file():
                    raise ExportError(f"{beside} is not a file")
                content = beside.read_bytes()
            except OSError as error:
                raise ExportError(
                    f"cannot read {beside}, the style encoder of {self.file.name}: {error.strerror}"
                ) from error
            if hashlib.sha256(content).hexdigest() != style.encoder_sha256:
                raise ExportError(f"{beside} is not the style encoder of {self.file.name}; export both again")
            self._encoder = open_session(content, PURPOSE, self.providers)
        return self._run(self._encoder, {"image": x}, beside, (len(x), style.length))

    def _run(self, session: Any, given: Mapping[str, Tensor], file: Path, shape: tuple[int, ...]) -> Tensor:
        arrays = {name: np.ascontiguousarray(x.float().numpy()) for name, x in given.items()}
        try:
            (found,) = session.run(None, arrays)
            shown = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        except Exception as error:  # onnxruntime has an exception for each kind of failure
            raise ExportError(f"{file} cannot be run: {in_one_line(error)}") from error
        if shown != f"float32 {shape}":
            raise ExportError(f"{file} gives {shown}, but float32 {shape} was expected")
        return torch.from_numpy(found)
