"""Contracts of components, kind by kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from i2ikit.checking import check, fits
from i2ikit.components.decoders import Decoding, Generating
from i2ikit.components.discriminators import Discriminating
from i2ikit.components.encoders import ContentEncoding, DistributionEncoding, VectorEncoding
from i2ikit.components.losses import AdversarialLoss, ImageLoss, ReconstructionLoss
from i2ikit.components.norms import AdaptiveNorm, Norm
from i2ikit.packages.entry import KINDS
from i2ikit.registry import Slot, Spec, registries, schema_of
from i2ikit.sizes import SizeRequirement, SizeRequiring, whole_requirement
from i2ikit.testing.measuring import check_dataset, check_metric
from i2ikit.testing.networks import (
    check_network,
    halves_agree,
    images,
    outputs_of,
    require,
    scalar_with_gradient,
)

__all__ = [
    "check_adaptive_norm",
    "check_adversarial_loss",
    "check_component",
    "check_content_encoder",
    "check_decoder",
    "check_discriminator",
    "check_generator",
    "check_image_loss",
    "check_latent_encoder",
    "check_norm",
    "check_reconstruction_loss",
    "check_style_encoder",
]

SIZES = ((1, 8, 64, 96), (3, 5, 96, 64))
"""Channels of an image, length of a code, height and width: two of each, so that none can be built in."""


def check_component(kind: str, name: str, **options: Any) -> None:
    """Check a component by the name that recipes use, with these options and defaults for the rest.

    Its contract is the one of the place that it fits: a norm, an adaptive norm, a content encoder, ...

    Raises:
        AssertionError: it does not keep its contract, or fits no place that i2ikit knows.
        ComponentError: the name is unknown, or cannot be loaded.
    """
    component = registries[kind].load(name)
    places = [(slot, test) for slot, test in _CONTRACTS if slot.kind == kind]
    fitting = [(slot, test) for slot, test in places if fits(component, slot)]
    if not fitting:
        wired = ", ".join(schema_of(component).wired)
        known = ", ".join(f"({', '.join(slot.wired)})" for slot, _ in places)
        raise AssertionError(
            f"{KINDS[kind]} '{name}' is built from ({wired}); the places that i2ikit has give {known}, or "
            "ask for other methods"
        )
    # A loss may fit several places; of the other kinds the strictest counts.
    for slot, test in fitting if kind == "losses" else fitting[:1]:
        spec, problems = check({"name": name, **options}, name, slot)
        require(not problems, "\n".join(map(str, problems)))
        test(spec)


def check_norm(make: Callable[[int], Norm]) -> None:
    """Check a norm: keeps shape and dtype, at odd sides too; see `check_network` for the rest."""
    for channels in (1, 6):
        check_network(partial(make, channels), [images(channels, 5, 7)], [(channels, 5, 7)], _called(make))


def check_adaptive_norm(make: Callable[[int], AdaptiveNorm]) -> None:
    """Check a norm whose parameters are an argument, each of which has an effect."""
    what = _called(make)
    for channels in (2, 6):
        count = make(channels).param_count()
        require(isinstance(count, int) and count > 0, f"{what}: param_count() is {count!r}")
        inputs = [images(channels, 5, 7), torch.randn(4, count)]
        norm = check_network(partial(make, channels), inputs, [(channels, 5, 7)], what)
        params = inputs[1].clone().requires_grad_()
        torch.autograd.backward((norm(inputs[0], params) * torch.randn(4, channels, 5, 7)).sum())
        idle = [] if params.grad is None else [n for n in range(count) if not params.grad[:, n].any()]
        require(not idle, f"{what}: of its {count} parameters, {len(idle)} have no effect")


def check_content_encoder(make: Callable[[int], ContentEncoding]) -> None:
    """Check an encoder to a map."""
    for channels, _, height, width in _sizes(make):
        encoder = make(channels)
        step = 2**encoder.num_downsample
        shape = (encoder.out_channels, height // step, width // step)
        check_network(partial(make, channels), [images(channels, height, width)], [shape], _called(make))
    _check_least_side(make, (channels,))


def check_style_encoder(make: Callable[[int, int], VectorEncoding]) -> None:
    """Check an encoder to a vector."""
    for channels, code, height, width in _sizes(make):
        given = [images(channels, height, width)]
        check_network(partial(make, channels, code), given, [(code,)], _called(make))
    _check_least_side(make, (channels, code))


def check_latent_encoder(make: Callable[[int, int], DistributionEncoding]) -> None:
    """Check an encoder to means and log variances."""
    for channels, code, height, width in _sizes(make):
        given = [images(channels, height, width)]
        check_network(partial(make, channels, code), given, [(code,), (code,)], _called(make))
    _check_least_side(make, (channels, code))


def check_decoder(make: Callable[[int, int, int, int], Decoding]) -> None:
    """Check a decoder of content and style code."""
    for (channels, code, height, width), content, num_upsample in zip(SIZES, (16, 24), (1, 2), strict=True):
        step = 2**num_upsample
        inputs = [torch.randn(4, content, height // step, width // step), torch.randn(4, code)]
        build = partial(make, content, channels, code, num_upsample)
        _check_painter(build, inputs, (channels, height, width), _called(make))


def check_generator(make: Callable[[int, int, int], Generating]) -> None:
    """Check a generator of image and code."""
    for (channels, code, height, width), given in zip(_sizes(make), (3, 1), strict=True):
        inputs = [images(given, height, width), torch.randn(4, code)]
        _check_painter(partial(make, given, channels, code), inputs, (channels, height, width), _called(make))
    _check_least_side(make, (given, channels, code), torch.randn(4, code))


def _check_painter(
    make: Callable[[], object], inputs: list[Tensor], shape: tuple[int, ...], what: str
) -> None:
    """A network that makes an image in [-1, 1], in which the code can be seen."""
    painter = check_network(make, inputs, [shape], what)
    with torch.no_grad():
        once = painter(*inputs)
        most = once.abs().max().item()
        require(most <= 1, f"{what}: values reach {most:.3g}; [-1, 1] is asked")
        other = painter(inputs[0], torch.randn_like(inputs[1]))
        require(not torch.equal(once, other), f"{what}: the code has no effect")


def check_discriminator(make: Callable[[int], Discriminating]) -> None:
    """Check a discriminator: one map of scores (N, 1, h, w) for each scale, and each sees the image."""
    what = _called(make)
    for channels, _, height, width in _sizes(make):
        x = images(channels, height, width)
        judge = check_network(partial(make, channels), [x], [], what)
        x.requires_grad_()
        scores = judge(x)
        listed = isinstance(scores, list | tuple)
        require(listed, f"{what}: should return a list of score maps, returns {type(scores).__name__}")
        for score in scores:
            fine = score.ndim == 4 and score.shape[:2] == (4, 1)
            require(fine, f"{what}: a score map has the shape {tuple(score.shape)}; (4, 1, h, w) is asked")
            (gradient,) = torch.autograd.grad(score.square().sum(), x, retain_graph=True, allow_unused=True)
            require(gradient is not None and gradient.any(), f"{what}: a score map does not see the image")
    _check_least_side(make, (channels,))


def check_adversarial_loss(make: Callable[[], AdversarialLoss]) -> None:
    """Check both sides of a game: gradients that oppose each other, and means over samples."""
    loss, what = make(), _called(make)

    def discriminator(*scores: Tensor) -> Tensor:
        return loss.discriminator(scores[:2], scores[2:])

    def generator(*scores: Tensor) -> Tensor:
        return loss.generator(scores)

    apart, against = [], []
    for centre in (0.5, 0.0, -0.5):  # scores that no usual game takes for decided
        scores = [centre + 0.1 * torch.randn(4, 1, h, w) for h, w in 2 * [(5, 7), (3, 4)]]
        judged = scalar_with_gradient(discriminator, scores, f"{what}.discriminator")
        wanted = scalar_with_gradient(generator, scores[:2], f"{what}.generator")
        pulls = [gradient.sum().item() for gradient in judged]
        apart.append(all(fake * real < 0 for fake, real in zip(pulls[:2], pulls[2:], strict=True)))
        wishes = [gradient.sum().item() for gradient in wanted]
        against.append(all(pull * wish < 0 for pull, wish in zip(pulls[:2], wishes, strict=True)))
        halves_agree(discriminator, scores, f"{what}.discriminator")
        halves_agree(generator, scores[:2], f"{what}.generator")
    require(any(apart), f"{what}: the discriminator should pull real and fake scores apart, at every scale")
    require(any(against), f"{what}: the generator should pull against the discriminator, at every scale")


def check_reconstruction_loss(make: Callable[[], ReconstructionLoss]) -> None:
    """Check a distance, on images and on codes: least where both are the same."""
    loss, what = make(), _called(make)
    for shape in ((4, 3, 32, 48), (4, 8)):
        x, y = torch.rand(shape) * 2 - 1, torch.rand(shape) * 2 - 1
        gradient, _ = scalar_with_gradient(loss, [x, y], what)
        require(gradient.any(), f"{what}: no gradient reaches the prediction")
        scalar_with_gradient(loss, [y, y.clone()], f"{what}, of a perfect prediction")
        nearer = loss(y, y) < loss(x, y)
        require(nearer, f"{what}: it is no smaller for a perfect prediction than for a random one")
        halves_agree(loss, [x, y], what)


def check_image_loss(make: Callable[[], ImageLoss]) -> None:
    """Check a distance between images of different domains, which may differ in their channels."""
    loss, what = make(), _called(make)
    side = loss.least_side()
    require(isinstance(side, int) and side > 0, f"{what}: least_side() is {side!r}")
    x, y = images(3, side, side), images(1, side, side)
    gradients = scalar_with_gradient(loss.compare, [x, y], what)
    require(all(g.any() for g in gradients), f"{what}: gradients should reach both images")
    halves_agree(loss.compare, [x, y], what)


def _requirement(make: Any) -> SizeRequirement:
    """What a class (with its defaults) or a spec needs of an image's sides."""
    if isinstance(make, Spec):
        return whole_requirement(make)
    if not (inspect.isclass(make) and isinstance(make, SizeRequiring)):
        return SizeRequirement()
    schema = schema_of(make)
    return make.size_requirement({**schema.model().model_dump(), **schema.defaults})


def _sizes(make: Any) -> list[tuple[int, int, int, int]]:
    """`SIZES`, the sides enlarged to what the component needs."""
    enlarged = _requirement(make).enlarged
    return [(channels, code, enlarged(height), enlarged(width)) for channels, code, height, width in SIZES]


def _check_least_side(make: Callable[..., Any], wired: tuple[int, ...], *others: Tensor) -> None:
    """Check that a network which says what it needs can do with that."""
    need = _requirement(make)
    if need != SizeRequirement():
        side = need.enlarged(1)
        with torch.no_grad():
            found = outputs_of(make(*wired).eval(), [images(wired[0], side, side), *others], _called(make))
        some = all(output.numel() for output in found)
        require(some, f"{_called(make)}: it asks for {need}, and of {side} px leaves nothing")


def _called(make: Any) -> str:
    """What to call a class, or a spec, in a message."""
    return str(getattr(make, "name", None) or getattr(make, "__qualname__", make))


_CONTRACTS: tuple[tuple[Slot, Callable[[Any], None]], ...] = (
    (Slot("norms", ("channels",), like=AdaptiveNorm), check_adaptive_norm),
    (Slot("norms", ("channels",)), check_norm),
    (Slot("encoders", ("in_channels",)), check_content_encoder),
    (Slot("encoders", ("in_channels", "style_dim")), check_style_encoder),
    (Slot("encoders", ("in_channels", "latent_dim")), check_latent_encoder),
    (Slot("decoders", ("content_channels", "out_channels", "style_dim", "num_upsample")), check_decoder),
    (Slot("decoders", ("in_channels", "out_channels", "latent_dim")), check_generator),
    (Slot("discriminators", ("in_channels",)), check_discriminator),
    (Slot("losses", (), like=AdversarialLoss), check_adversarial_loss),
    (Slot("losses", (), like=ImageLoss), check_image_loss),
    (Slot("losses", (), like=ReconstructionLoss), check_reconstruction_loss),
    (Slot("datasets", ()), check_dataset),
    (Slot("metrics", ()), check_metric),
)
"""The places that i2ikit's own methods have, the stricter ones first, and what they check."""
