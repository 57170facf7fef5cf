"""Contract checks of components, by kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from i2ikit.checking import SizeRequiring, check, fits, whole_requirement
from i2ikit.components.decoders import Decoding, Generating
from i2ikit.components.discriminators import Discriminating
from i2ikit.components.encoders import ContentEncoding, DistributionEncoding, VectorEncoding
from i2ikit.components.losses import AdversarialLoss, ImageLoss, ReconstructionLoss
from i2ikit.components.norms import AdaptiveNorm, Norm
from i2ikit.components.optimizers import OPTIMIZER_SLOT, OptimizerFactory
from i2ikit.packages.entry import KINDS
from i2ikit.registry import Slot, Spec, registries, schema_of
from i2ikit.sizes import SizeRequirement
from i2ikit.state import load_optimizer, optimizer_tensors
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
    "check_optimizer",
    "check_reconstruction_loss",
    "check_style_encoder",
]

SIZES = ((1, 8, 64, 96), (3, 5, 96, 64))
"""Image channels, code length, height and width; two sets, to detect hard-coded sizes."""


def check_component(kind: str, name: str, **options: Any) -> None:
    """Check a component by its name in recipes, with these options and defaults for the others.

    The contract is that of the slot that the component fits: norm, adaptive norm, content encoder, ...

    Raises:
        AssertionError: the component breaks its contract, or fits no slot of i2ikit.
        ComponentError: the name is unknown, or the component cannot be loaded.
    """
    component = registries[kind].load(name)
    places = [(slot, test) for slot, test in _CONTRACTS if slot.kind == kind]
    fitting = [(slot, test) for slot, test in places if fits(component, slot)]
    if not fitting:
        wired = ", ".join(schema_of(component).wired)
        known = ", ".join(f"({', '.join(slot.wired)})" for slot, _ in places)
        raise AssertionError(
            f"{KINDS[kind]} '{name}' fits no slot of i2ikit: it is built from ({wired}); the slots pass "
            f"{known}, and some require methods"
        )
    # A loss may fit several slots; for the other kinds only the strictest fitting slot is checked.
    for slot, test in fitting if kind == "losses" else fitting[:1]:
        spec, problems = check({"name": name, **options}, name, slot)
        require(not problems, "\n".join(map(str, problems)))
        test(spec)


def check_norm(make: Callable[[int], Norm]) -> None:
    """Check that a norm keeps shape and dtype, also at odd sides; `check_network` checks the rest."""
    what = _called(make)
    for channels in (1, 6):
        norm = check_network(partial(make, channels), [images(channels, 5, 7)], [(channels, 5, 7)], what)
    _check_channels_last(what, norm, images(6, 5, 7))


def check_adaptive_norm(make: Callable[[int], AdaptiveNorm]) -> None:
    """Check a norm that takes its parameters as an argument; each of them must have an effect."""
    what = _called(make)
    for channels in (2, 6):
        count = make(channels).param_count()
        require(isinstance(count, int) and count > 0, f"{what}: param_count() is {count!r}")
        inputs = [images(channels, 5, 7), torch.randn(4, count)]
        norm = check_network(partial(make, channels), inputs, [(channels, 5, 7)], what)
        params = inputs[1].clone().requires_grad_()
        torch.autograd.backward((norm(inputs[0], params) * torch.randn(4, channels, 5, 7)).sum())
        idle = [] if params.grad is None else [n for n in range(count) if not params.grad[:, n].any()]
        require(not idle, f"{what}: {len(idle)} of its {count} parameters have no effect")
    _check_channels_last(what, norm, *inputs)


def check_content_encoder(make: Callable[[int], ContentEncoding]) -> None:
    """Check an encoder whose output is a feature map."""
    for channels, _, height, width in _sizes(make):
        encoder = make(channels)
        step = 2**encoder.num_downsample
        shape = (encoder.out_channels, height // step, width // step)
        check_network(partial(make, channels), [images(channels, height, width)], [shape], _called(make))
    _check_least_side(make, (channels,))


def check_style_encoder(make: Callable[[int, int], VectorEncoding]) -> None:
    """Check an encoder whose output is a vector."""
    for channels, code, height, width in _sizes(make):
        given = [images(channels, height, width)]
        check_network(partial(make, channels, code), given, [(code,)], _called(make))
    _check_least_side(make, (channels, code))


def check_latent_encoder(make: Callable[[int, int], DistributionEncoding]) -> None:
    """Check an encoder whose outputs are means and log variances."""
    for channels, code, height, width in _sizes(make):
        given = [images(channels, height, width)]
        check_network(partial(make, channels, code), given, [(code,), (code,)], _called(make))
    _check_least_side(make, (channels, code))


def check_decoder(make: Callable[[int, int, int, int], Decoding]) -> None:
    """Check a decoder that takes a content code and a style code."""
    for (channels, code, height, width), content, num_upsample in zip(SIZES, (16, 24), (1, 2), strict=True):
        step = 2**num_upsample
        inputs = [torch.randn(4, content, height // step, width // step), torch.randn(4, code)]
        build = partial(make, content, channels, code, num_upsample)
        _check_painter(build, inputs, (channels, height, width), _called(make))


def check_generator(make: Callable[[int, int, int], Generating]) -> None:
    """Check a generator that takes an image and a code."""
    for (channels, code, height, width), given in zip(_sizes(make), (3, 1), strict=True):
        inputs = [images(given, height, width), torch.randn(4, code)]
        _check_painter(partial(make, given, channels, code), inputs, (channels, height, width), _called(make))
    _check_least_side(make, (given, channels, code), torch.randn(4, code))


def _check_painter(
    make: Callable[[], object], inputs: list[Tensor], shape: tuple[int, ...], what: str
) -> None:
    """Check a network whose output is an image in [-1, 1] that depends on the code."""
    painter = check_network(make, inputs, [shape], what)
    with torch.no_grad():
        once = painter(*inputs)
        most = once.abs().max().item()
        require(most <= 1, f"{what}: values reach {most:.3g}; expected [-1, 1]")
        other = painter(inputs[0], torch.randn_like(inputs[1]))
        require(not torch.equal(once, other), f"{what}: the code has no effect")


def check_discriminator(make: Callable[[int], Discriminating]) -> None:
    """Check a discriminator: one score map (N, 1, h, w) per scale, each of which depends on the image."""
    what = _called(make)
    for channels, _, height, width in _sizes(make):
        x = images(channels, height, width)
        judge = check_network(partial(make, channels), [x], [], what)
        x.requires_grad_()
        scores = judge(x)
        listed = isinstance(scores, list | tuple)
        require(listed, f"{what}: expected a list of score maps, got {type(scores).__name__}")
        for score in scores:
            fine = score.ndim == 4 and score.shape[:2] == (4, 1)
            require(fine, f"{what}: a score map has shape {tuple(score.shape)}; expected (4, 1, h, w)")
            (gradient,) = torch.autograd.grad(score.square().sum(), x, retain_graph=True, allow_unused=True)
            require(gradient is not None and gradient.any(), f"{what}: a score map ignores the image")
    _check_least_side(make, (channels,))


def check_adversarial_loss(make: Callable[[], AdversarialLoss]) -> None:
    """Check that both losses have opposing gradients and are means over samples."""
    loss, what = make(), _called(make)

    def discriminator(*scores: Tensor) -> Tensor:
        return loss.discriminator(scores[:2], scores[2:])

    def generator(*scores: Tensor) -> Tensor:
        return loss.generator(scores)

    apart, against = [], []
    for centre in (0.5, 0.0, -0.5):  # scores where the usual losses do not saturate
        scores = [centre + 0.1 * torch.randn(4, 1, h, w) for h, w in 2 * [(5, 7), (3, 4)]]
        judged = scalar_with_gradient(discriminator, scores, f"{what}.discriminator")
        wanted = scalar_with_gradient(generator, scores[:2], f"{what}.generator")
        pulls = [gradient.sum().item() for gradient in judged]
        apart.append(all(fake * real < 0 for fake, real in zip(pulls[:2], pulls[2:], strict=True)))
        wishes = [gradient.sum().item() for gradient in wanted]
        against.append(all(pull * wish < 0 for pull, wish in zip(pulls[:2], wishes, strict=True)))
        halves_agree(discriminator, scores, f"{what}.discriminator")
        halves_agree(generator, scores[:2], f"{what}.generator")
    require(any(apart), f"{what}: the discriminator loss must push real and fake scores apart at every scale")
    require(any(against), f"{what}: the generator loss must oppose the discriminator loss at every scale")


def check_reconstruction_loss(make: Callable[[], ReconstructionLoss]) -> None:
    """Check a distance on images and codes: it must be smaller for equal arguments than for random ones."""
    loss, what = make(), _called(make)
    for shape in ((4, 3, 32, 48), (4, 8)):
        x, y = torch.rand(shape) * 2 - 1, torch.rand(shape) * 2 - 1
        gradient, _ = scalar_with_gradient(loss, [x, y], what)
        require(gradient.any(), f"{what}: no gradient reaches the prediction")
        scalar_with_gradient(loss, [y, y.clone()], f"{what}, for a perfect prediction")
        nearer = loss(y, y) < loss(x, y)
        require(nearer, f"{what}: not smaller for a perfect prediction than for a random one")
        halves_agree(loss, [x, y], what)


def check_image_loss(make: Callable[[], ImageLoss]) -> None:
    """Check a distance between images of two domains, whose numbers of channels may differ."""
    loss, what = make(), _called(make)
    side = loss.least_side()
    require(isinstance(side, int) and side > 0, f"{what}: least_side() is {side!r}")
    x, y = images(3, side, side), images(1, side, side)
    gradients = scalar_with_gradient(loss.compare, [x, y], what)
    require(all(g.any() for g in gradients), f"{what}: gradients must reach both images")
    halves_agree(loss.compare, [x, y], what)


def check_optimizer(make: Callable[[], OptimizerFactory]) -> None:
    """Check an optimizer: it moves parameters, has a learning rate, and continues from what it has saved."""
    what = _called(make)

    def new() -> tuple[nn.ParameterList, Optimizer]:
        network = nn.ParameterList([Parameter(torch.linspace(-1, 1, 6))])
        return network, make().optimizer(list(network.parameters()))

    def step(network: nn.ParameterList, optimizer: Optimizer) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(network[0].square().sum())
        optimizer.step()

    whole, optimizer = new()
    require("lr" in optimizer.defaults, f"{what}: the optimizer has no learning rate `lr`")
    start = whole[0].detach().clone()
    step(whole, optimizer)
    step(whole, optimizer)
    require(not torch.equal(whole[0], start), f"{what}: a step does not move the parameter")
    kept = {key: value for state in optimizer.state.values() for key, value in state.items()}
    strange = [key for key, value in kept.items() if not isinstance(value, Tensor | int | float | None)]
    require(
        not strange,
        f"{what}: it keeps {', '.join(strange)}, which checkpoints cannot save, because it is not a tensor",
    )
    resumed, other = new()
    resumed.load_state_dict(whole.state_dict())
    load_optimizer(resumed, other, *optimizer_tensors(whole, optimizer))
    step(whole, optimizer)
    step(resumed, other)
    require(
        torch.equal(whole[0], resumed[0]),
        f"{what}: after saving and loading, it continues differently; checkpoints hold what it keeps by "
        "parameter, not what its groups keep",
    )


def _check_channels_last(what: str, norm: Any, x: Tensor, *rest: Tensor) -> None:
    """The same numbers in channels_last, if the norm declares that it takes this memory format."""
    if getattr(norm, "channels_last", False):
        y = norm(x.contiguous(memory_format=torch.channels_last), *rest)
        same = torch.allclose(y, norm(x, *rest), rtol=1e-4, atol=1e-5)
        require(
            same, f"{what}: it declares channels_last = True, but its result differs in that memory format"
        )
        kept = y.is_contiguous(memory_format=torch.channels_last)
        require(kept, f"{what}: it declares channels_last = True, but returns another memory format")


def _requirement(make: Any) -> SizeRequirement:
    """The image size that a class (with its defaults) or a spec requires."""
    if isinstance(make, Spec):
        return whole_requirement(make)
    if not (inspect.isclass(make) and isinstance(make, SizeRequiring)):
        return SizeRequirement()
    schema = schema_of(make)
    return make.size_requirement({**schema.model().model_dump(), **schema.defaults})


def _sizes(make: Any) -> list[tuple[int, int, int, int]]:
    """`SIZES`, with sides enlarged as the component requires."""
    enlarged = _requirement(make).enlarged
    return [(channels, code, enlarged(height), enlarged(width)) for channels, code, height, width in SIZES]


def _check_least_side(make: Callable[..., Any], wired: tuple[int, ...], *others: Tensor) -> None:
    """Check that a network with a size requirement works at the smallest size that meets it."""
    need = _requirement(make)
    if need != SizeRequirement():
        side = need.enlarged(1)
        with torch.no_grad():
            found = outputs_of(make(*wired).eval(), [images(wired[0], side, side), *others], _called(make))
        some = all(output.numel() for output in found)
        require(some, f"{_called(make)}: requires {need}, but its output for {side} px is empty")


def _called(make: Any) -> str:
    """The name of a class or spec, for messages."""
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
    (OPTIMIZER_SLOT, check_optimizer),
)
"""The slots of i2ikit's own translators, the stricter ones first, and their checks."""
