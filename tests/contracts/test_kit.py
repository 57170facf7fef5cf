"""The checks of `i2ikit.testing` find what they are there to find."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.nn import functional as F

from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.data.folders import Folders
from i2ikit.metrics.subject import Measured, Subject
from i2ikit.packages.survey import survey
from i2ikit.packages.templates.datasets import MyPlugin as Circles
from i2ikit.packages.templates.translators import MyPlugin as Small
from i2ikit.registry import Spec, encoders, norms, translators
from i2ikit.testing import (
    check_adaptive_norm,
    check_adversarial_loss,
    check_component,
    check_content_encoder,
    check_dataset,
    check_decoder,
    check_discriminator,
    check_latent_encoder,
    check_metric,
    check_norm,
    check_reconstruction_loss,
    check_translator,
)
from i2ikit.testing.translators import _check_declarations
from i2ikit.translator import Direction, Given, ImageSpec, Phase, Result
from tests.fake_packages import put
from tests.image_files import folders_at

Made = Callable[[Tensor], Tensor]


def norm_of(function: Made, **attributes: Any) -> Callable[[int], nn.Module]:
    """A norm that applies a function."""

    class Given(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(channels))

        def forward(self, x: Tensor) -> Tensor:
            return function(x * self.scale[:, None, None])

    return Given


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:, :, 1:], r"output of shape \(4, 1, 5, 7\), got \(4, 1, 4, 7\)"),
        (lambda x: x.detach().requires_grad_(), "no gradient reaches input 1"),
        (lambda x: F.dropout(x), "in eval mode the same input gives different outputs"),
        (lambda x: x - x.mean(0), "depends on the rest of its batch"),
        (
            lambda x: x / x.std((2, 3), keepdim=True),
            "with constant samples, outputs or gradients are not fin",
        ),
        (lambda x: x.float(), "float64 input gives torch.float32 output"),
        (lambda x: x * float("nan"), "an output is not finite"),
        (lambda x: x.half(), "fp32 input gives torch.float16 output"),
        (lambda x: 3, "expected tensors as output|not iterable"),
    ],
)
def test_a_norm_that_breaks_a_promise_is_found_out(function: Made, message: str) -> None:
    check_norm(norm_of(lambda x: x))
    with pytest.raises((AssertionError, TypeError), match=message):
        check_norm(norm_of(function))


def spoilt_where(unsafe: Callable[[], bool]) -> Callable[[int], nn.Module]:
    """A norm whose output is not finite under some condition."""
    return norm_of(lambda x: x * float("nan") if unsafe() else x)


def test_a_network_that_bf16_breaks_is_found_out_and_no_fault_of_onednn_is_laid_to_it() -> None:
    """oneDNN's bf16 convolutions for AMX read beyond narrow inputs: another kernel is asked before judging."""
    in_bf16 = partial(torch.is_autocast_enabled, "cpu")
    with pytest.raises(AssertionError, match="under bf16 autocast, an output is not finite"):
        check_norm(spoilt_where(in_bf16))
    enabled = mkldnn.enabled
    check_norm(spoilt_where(lambda: in_bf16() and bool(mkldnn.enabled)))
    assert mkldnn.enabled == enabled


class Forgetful(nn.Module):
    """Keeps something that decides its output out of its state."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = torch.randn(())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift.to(x.dtype)


class Idle(nn.Module):
    """Has a parameter that it does not use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (Forgetful, "loading its state_dict changes its output; something is not saved"),
        (Idle, "no gradient reaches the parameter 'gain'"),
        (lambda channels: len, "expected a torch.nn.Module, got builtin_function_or_method"),
    ],
)
def test_state_and_parameters_are_checked(norm: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_norm(norm)


class ReZero(nn.Module):
    """Starts as the identity, and has a parameter that is not trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))
        self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fixed + self.gain * self.conv(x)


class AllZero(nn.Module):
    """Starts as zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


@pytest.mark.parametrize("norm", [ReZero, AllZero])
def test_zeros_to_start_with_and_frozen_parameters_are_no_fault(norm: Any) -> None:
    check_norm(norm)


class HalfUsed(nn.Module):
    """An adaptive norm that has no use for its scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def param_count(self) -> int:
        return 2 * self.channels

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        return x + params[:, : self.channels, None, None]


class FixedVariance(nn.Module):
    """A latent encoder whose log variance is 0, as UNIT's."""

    def __init__(self, in_channels: int, latent_dim: int, built_in: int | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, built_in or latent_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.linear(x.mean((2, 3)))
        return mean, torch.zeros_like(mean)


def test_sizes_are_not_built_in_and_every_parameter_counts() -> None:
    check_latent_encoder(FixedVariance)
    with pytest.raises(AssertionError, match=r"output of shape \(4, 5\), got \(4, 8\)"):
        check_latent_encoder(lambda channels, latent: FixedVariance(channels, latent, 8))
    with pytest.raises(AssertionError, match="2 of its 4 parameters have no effect"):
        check_adaptive_norm(HalfUsed)


class Single(nn.Module):
    """A discriminator that returns a tensor, no list."""

    def __init__(self, in_channels: int, outputs: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, outputs, 4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.conv(x)


class TwoColumns(Single):
    """A discriminator whose maps have two channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)]


class Blind(Single):
    """A discriminator of two scales, one of which does not look."""

    def forward(self, x: Tensor) -> list[Tensor]:
        score = self.conv(x)
        return [score, score.new_ones(len(x), 1, 2, 2) * self.conv.bias[0]]


def test_discriminators_return_lists_of_single_maps() -> None:
    with pytest.raises(AssertionError, match="expected a list of score maps, got Tensor"):
        check_discriminator(Single)
    with pytest.raises(AssertionError, match=r"has shape \(4, 2, 16, 24\); expected \(4, 1, h, w\)"):
        check_discriminator(TwoColumns)
    with pytest.raises(AssertionError, match="a score map ignores the image"):
        check_discriminator(Blind)


class Loud(nn.Module):
    """A decoder that leaves [-1, 1], or does not hear the style."""

    def __init__(
        self, c: int, out: int, style_dim: int, up: int, *, factor: float = 9, deaf: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(c, out, 2**up, 2**up)
        self.style = nn.Linear(style_dim, out)
        self.factor, self.deaf = factor, deaf

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        heard = self.style(style)[:, :, None, None] * (1e-30 if self.deaf else 1)
        return self.factor * torch.tanh(self.conv(content) + heard)


def test_decoders_stay_in_range_and_hear_the_style() -> None:
    check_decoder(lambda *sizes: Loud(*sizes, factor=1))
    with pytest.raises(AssertionError, match=r"values reach .*; expected \[-1, 1\]"):
        check_decoder(Loud)
    with pytest.raises(AssertionError, match="the code has no effect"):
        check_decoder(lambda *sizes: Loud(*sizes, factor=1, deaf=True))


class Halving(nn.Module):
    """A content encoder that says something else than it does."""

    out_channels = 5
    num_downsample = 2

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 5, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_a_content_encoder_does_what_its_attributes_say() -> None:
    with pytest.raises(AssertionError, match=r"output of shape \(4, 5, 16, 24\), got \(4, 5, 32, 48\)"):
        check_content_encoder(Halving)


class Game:
    """An adversarial loss with something wrong."""

    def __init__(self, reduce: Any = torch.mean, sign: float = 1) -> None:
        self.reduce, self.sign = reduce, sign

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return torch.stack(
            [
                self.reduce((1 + f).relu()) + self.reduce((1 - r).relu())
                for f, r in zip(fake, real, strict=True)
            ]
        ).sum()

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        return -self.sign * torch.stack([self.reduce(f) for f in fake]).sum()


class Symmetric:
    """Least squares with -1 for fake, 1 for real, and 0 as what the generator wants."""

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        pairs = zip(fake, real, strict=True)
        return torch.stack([(f + 1).square().mean() + (r - 1).square().mean() for f, r in pairs]).sum()

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        return torch.stack([f.square().mean() for f in fake]).sum()


class OneSided(Symmetric):
    """Pulls both the same way."""

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return torch.stack([f.mean() + r.mean() for f, r in zip(fake, real, strict=True)]).sum()


def test_adversarial_losses_are_means_and_a_game_of_two_sides() -> None:
    check_adversarial_loss(Game)
    check_adversarial_loss(Symmetric)
    with pytest.raises(AssertionError, match="the discriminator loss must push real and fake scores apart"):
        check_adversarial_loss(OneSided)
    with pytest.raises(AssertionError, match="the generator loss must oppose the discriminator loss"):
        check_adversarial_loss(lambda: Game(sign=-1))
    with pytest.raises(AssertionError, match="a loss must be a mean over its samples"):
        check_adversarial_loss(lambda: Game(torch.sum))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda x, y: (x - y).square().sum(), "must be a mean over its samples"),
        (lambda x, y: (x + y).square().mean(), "not smaller for a perfect prediction"),
        (lambda x, y: (x - y).abs(), "expected a scalar tensor"),
        (lambda x, y: (x.detach() - y).abs().mean(), "no gradient reaches the prediction"),
        (lambda x, y: (x - y).log().mean(), "is nan"),
        (
            lambda x, y: (x - y).square().flatten(1).mean(1).sqrt().mean(),
            "perfect prediction: its gradient is",
        ),
    ],
)
def test_reconstruction_losses_are_distances(loss: Any, message: str) -> None:
    check_reconstruction_loss(lambda: lambda x, y: (x - y).square().mean())
    with pytest.raises(AssertionError, match=message):
        check_reconstruction_loss(lambda: loss)


class OddCircles(Circles):
    """A dataset with something wrong."""

    def __init__(self, flaw: str) -> None:
        super().__init__(count=4)
        self.flaw = flaw

    def image(self, split: Any, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        x = super().image(split, domain, index, rng)
        changed = {
            "bytes": x * 127.5 + 127.5,
            "restless": x * torch.rand(()),
            "small": x[:, 1:],
            "drawing": x * float(np.random.default_rng().random()) if rng is not None else x,
        }
        return changed[self.flaw]


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ("bytes", r"values from 0 to 255; expected \[-1, 1\]"),
        ("restless", "differs from call to call"),
        ("small", r"expected shape \(3, 64, 64\), got \(3, 63, 64\)"),
        ("drawing", "its augmentation depends on more than the given generator"),
    ],
)
def test_datasets_keep_shape_range_and_order(flaw: str, message: str) -> None:
    check_dataset(lambda: Circles(count=4))
    with pytest.raises(AssertionError, match=message):
        check_dataset(lambda: OddCircles(flaw))


def test_datasets_of_files_name_as_many_files_as_images(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_dataset(lambda: folders_at(folders))
    monkeypatch.setattr(Folders, "count", lambda self, split, domain: 1)
    with pytest.raises(AssertionError, match=r"train, domain a: files\(\) has 6 files, but count\(\) is 1"):
        check_dataset(lambda: folders_at(folders))


class Number:
    """A metric that returns what it is given."""

    def __init__(self, value: Callable[[], Any]) -> None:
        self.value = value

    def measure(self, subject: Subject) -> Measured:
        return Measured({"number": self.value()})


def test_metrics_are_finite_and_repeatable() -> None:
    check_metric(lambda: Number(lambda: 1.5))
    with pytest.raises(AssertionError, match="'number' is nan"):
        check_metric(lambda: Number(lambda: float("nan")))
    with pytest.raises(AssertionError, match="two measurements with the same seed give different numbers"):
        check_metric(lambda: Number(lambda: torch.rand(()).item()))


@pytest.fixture
def scratch() -> Iterator[None]:
    """Take back what a test registers."""
    yield
    for registry in (norms, encoders, translators):
        for entry in [e for e in registry.entries() if e.package == "registered"]:
            registry.unregister(entry.name)


class Pyramid(nn.Module):
    """An encoder for a place that i2ikit does not have."""

    def __init__(self, in_channels: int, levels: int) -> None:
        super().__init__()


@pytest.mark.usefixtures("scratch")
def test_a_component_for_an_unknown_place_is_told_which_are_known() -> None:
    encoders.register("pyramid", Pyramid)
    with pytest.raises(
        AssertionError, match=r"built from \(in_channels, levels\); the slots .* \(in_channels\), "
    ):
        check_component("encoders", "pyramid")


def test_options_are_validated() -> None:
    with pytest.raises(
        AssertionError, match=r"bn\.momentun: norm 'bn' has no option 'momentun'; did you mean"
    ):
        check_component("norms", "bn", momentun=0.5)


class Flawed(Small):
    """The small method of `new-plugin`, as it is."""

    def generator_losses(self, given: Given) -> Result:
        return super().generator_losses(given)


class Unweighted(Flawed):
    """Returns a loss without a weight."""

    def generator_losses(self, given: Given) -> Result:
        result = super().generator_losses(given)
        return Result({**result.losses, "surprise": next(iter(result.losses.values()))}, result.handed)


class Eager(Flawed):
    """Computes a loss of weight 0."""

    def generator_losses(self, given: Given) -> Result:
        result = super().generator_losses(given)
        return Result({"cycle_recon": next(iter(result.losses.values())), **result.losses}, result.handed)


class NotANumber(Flawed):
    """Has a loss that is not finite."""

    def generator_losses(self, given: Given) -> Result:
        result = super().generator_losses(given)
        return Result({name: loss / 0 for name, loss in result.losses.items()}, result.handed)


class Attached(Flawed):
    """Hands on what still has its graph."""

    def generator_losses(self, given: Given) -> Result:
        result = super().generator_losses(given)
        made = self.translate(given.images["b"], given.draws["a"], source="b", to="a")
        return Result(result.losses, dict.fromkeys("ab", made))


class Untrained(Flawed):
    """Has a network that no phase trains."""

    def phases(self) -> tuple[Phase, ...]:
        generator, discriminator = super().phases()
        return Phase(generator.name, generator.losses, (), generator.draws), discriminator


class Deaf(Flawed):
    """Does not hear the style."""

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return super().translate(x, 0 * style, source=source, to=to)


class Wide(Flawed):
    """Leaves [-1, 1]."""

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return 9 * super().translate(x, style, source=source, to=to)


class Cropping(Flawed):
    """Returns sides that are multiples of 4."""

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return super().translate(x, style, source=source, to=to)[
            :, :, : x.shape[2] // 4 * 4, : x.shape[3] // 4 * 4
        ]


class OwnGenerator(Flawed):
    """Draws styles from torch's own generator."""

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, self.style_dim)


class DetachedLoss(Flawed):
    """Has a loss that moves nothing."""

    def generator_losses(self, given: Given) -> Result:
        result = super().generator_losses(given)
        losses = {k: v.detach() if k.startswith("cycle") else v for k, v in result.losses.items()}
        return Result(losses, result.handed)


class Unseeing(Flawed):
    """Ignores its input."""

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return super().translate(x * 0, style, source=source, to=to)


class Stray(Flawed):
    """Has a parameter outside its networks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.ones(()))


class Moody(Flawed):
    """Hears another style each time."""

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        return torch.randn(len(x), self.style_dim)


class Forgetting(Flawed):
    """Remembers of its training what it does not save."""

    seen = 0

    def generator_losses(self, given: Given) -> Result:
        self.seen += 1
        return super().generator_losses(given)

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return super().translate(x, style, source=source, to=to) / (1 + self.seen)


class Misnamed(Flawed):
    """Has default options for the optimizer of a network that there is not."""

    optimizer_defaults: ClassVar = {"mapping": {"lr": 1e-6}}


class Misconfigured(Flawed):
    """Has a default that its optimizer does not know."""

    optimizer_defaults: ClassVar = {"generators": {"momentum": 0.9}}


class NoWhere(Flawed):
    """Translates into a domain that there is not."""

    def __init__(
        self,
        images: ImageSpec,
        *,
        discriminator: DiscriminatorSpec = Spec("discriminators", "patchgan"),
        width: int = 4,
    ) -> None:
        super().__init__(images, discriminator=discriminator, width=width)
        self.directions = (Direction("a", "c"),)


class Failing(Flawed):
    """Fails in its phase."""

    def generator_losses(self, given: Given) -> Result:
        raise KeyError("s_a")


TINY = {"width": 4, "discriminator": {"width": 4}}


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Unweighted, "phase 'generator': losses without a weight: surprise"),
        (Eager, "phase 'generator' with generator.cycle_recon = 0: losses without a weight: cycle_recon"),
        (NotANumber, "loss 'adversarial/a' is (inf|nan)"),
        (Attached, "detach the tensor 'a' that it returns"),
        (Untrained, "no phase trains the network 'generators'"),
        (Deaf, "the style has no effect on a translation|no phase gives a gradient"),
        (Wide, r"has values up to .*; expected \[-1, 1\]"),
        (Cropping, r"expected shape \(2, 3, 61, 30\), got \(2, 3, 60, 28\)"),
        (DetachedLoss, "loss 'cycle_recon/a' has no gradient; is it detached"),
        (Unseeing, "does not depend on the image"),
        (Moody, "encode_style is not deterministic, or depends on the batch"),
        (Forgetting, "it depends on something, or changes something, that checkpoints do not save"),
        (Misnamed, "optimizer_defaults names mapping; the networks are generators, discriminators"),
        (Misconfigured, "optimizer_defaults: .*optimizer 'adam' has no option 'momentum'"),
        (NoWhere, "its directions are a2c; expected pairs of the domains a, b"),
        (Failing, "phase 'generator' fails: KeyError: 's_a'"),
        (OwnGenerator, "sample_style is not determined by its generator"),
    ],
)
def test_a_method_that_breaks_a_promise_is_found_out(method: type[Small], message: str) -> None:
    translators.register("flawed", method)
    with pytest.raises(AssertionError, match=message):
        check_translator("flawed", TINY, two_processes=False)


def test_parameters_belong_to_networks() -> None:
    with pytest.raises(AssertionError, match="these parameters are not in `networks`: gain"):
        _check_declarations(Stray(ImageSpec({"a": 3, "b": 3}, 64), width=4), "stray")


@pytest.mark.usefixtures("scratch")
def test_a_method_that_only_this_process_knows_cannot_run_in_two() -> None:
    translators.register("sound", Flawed)
    check_translator("sound", TINY, two_processes=False)
    with pytest.raises(AssertionError, match="registered in this process only"):
        check_translator("sound", TINY)


BATCHY = '''
from i2ikit.packages.templates.translators import MyPlugin
from i2ikit.translator import Result

class Batchy(MyPlugin):
    """Divides by what the whole batch has: two processes do otherwise than one."""

    def generator_losses(self, given):
        result = super().generator_losses(given)
        losses = {name: loss / given.images["a"].std() for name, loss in result.losses.items()}
        return Result(losses, result.handed)
'''


@pytest.mark.slow
def test_two_processes_that_do_otherwise_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "batchy", "[i2ikit.translators]\nbatchy = batchy:Batchy\n", BATCHY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    survey.cache_clear()
    try:
        with pytest.raises(AssertionError, match=r"differs by .* \(relative\) between two processes and one"):
            check_translator("batchy", TINY)
    finally:
        survey.cache_clear()
