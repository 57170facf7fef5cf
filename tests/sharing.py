"""A few steps of a method on generated images, in one process or in several; what each computed.

    torchrun --standalone --nproc_per_node 2 -m tests.sharing OUT SEED
    python -m tests.sharing OUT SEED

write gradients of the first step and losses of the first ones, for every case, to OUT.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import AlexNet

from i2ikit.components.norms import BatchNorm
from i2ikit.data.batches import shares
from i2ikit.processes import Processes, processes
from i2ikit.recipe import load_recipe
from i2ikit.state import TrainingState
from i2ikit.testing.translators import gradients
from i2ikit.training import build, counted_draw, cut_batch, new_accelerator, new_translator, train_step
from i2ikit.translator import ImageSpec
from tests.image_files import make_folders
from tests.tiny import NARROW, TINY

BATCH_SIZES = {
    "munit": (9, 19),
    "bicyclegan": (18, 38),
    "unit": (7, 15),
    "cyclegan-noise": (7, 15),
    "pix2pix": (7, 15),
}
"""In float64 and in fp32; shares differ in size. In fp32 they are of two images at least: convolutions
add up the weights' gradients of a single one in another order still.
"""
STEPS = 6
LONG = 20
SIDE = 32
SMALL = {
    "munit": (
        *TINY[:-1],
        "translator.style_encoder.num_downsample=2",
        "translator.discriminator.num_scales=2",
        "translator.discriminator.num_layers=2",
    ),
    "bicyclegan": (
        *NARROW["bicyclegan"],
        "translator.encoder.norm=in",
        "translator.generator.num_downsample=4",
        "translator.encoder.num_blocks=3",
        "translator.discriminator.num_layers=2",
    ),
    "unit": (*NARROW["unit"], "translator.discriminator.num_scales=1"),
    "cyclegan-noise": (
        *NARROW["cyclegan"],
        "translator.generator.num_downsample=4",
        "translator.discriminator.num_scales=1",
    ),
    "pix2pix": (
        *NARROW["pix2pix"],
        "translator.generator.num_downsample=4",
        "translator.discriminator.num_layers=2",
    ),
}
"""Overrides that make the methods small enough for images of 32 px."""


@dataclass(frozen=True)
class Case:
    """What is trained: a recipe, changed; images in micro-batches; in float64 or fp32."""

    recipe: str
    overrides: tuple[str, ...]
    accumulation: int
    dtype: torch.dtype

    def __str__(self) -> str:
        changed = " ".join(o.rpartition(".")[2] for o in self.overrides)
        return f"{self.recipe} {changed} accumulation={self.accumulation} {str(self.dtype)[6:]}"

    @property
    def is_long(self) -> bool:
        """Whether only the full matrix holds it: each norm and each order is in one other case at least."""
        crossed = ("norm=bn" in str(self)) == ("discriminator-first" in str(self))
        return self.accumulation == 4 or (len(self.overrides) == 2 and crossed)


def cases() -> Iterator[Case]:
    """MUNIT with each norm in the style encoder and in both orders, and BicycleGAN."""
    munit = [
        (f"translator.style_encoder.norm={norm}", f"translator.order={order}")
        for norm in ("bn", "none")
        for order in ("generator-first", "discriminator-first")
    ]
    for accumulation in (1, 3, 4):
        for dtype in (torch.float64, torch.float32):
            for overrides in munit:
                yield Case("munit", overrides, accumulation, dtype)
            yield Case("bicyclegan", (), accumulation, dtype)
    # Style encoders that no loss reaches have no gradient to exchange.
    silent = tuple(
        f"translator.weights.generator.{name}=0" for name in ("image_recon", "style_recon", "cycle_recon")
    )
    yield Case("munit", silent, 3, torch.float64)
    # Spectral norm takes a step at each look, of which each process has as many.
    beside = "{name='multiscale-patch', width=4, num_layers=2, num_scales=2}"
    through = f"{{name='projected', width=4, side=32, beside={beside}, weights='TRUNK'}}"
    yield Case("munit", (f"translator.discriminator={through}",), 3, torch.float64)
    yield Case("bicyclegan", ("translator.encoder.norm=bn",), 3, torch.float64)
    yield Case("unit", (), 3, torch.float64)
    yield Case("cyclegan-noise", (), 3, torch.float64)
    yield Case("pix2pix", (), 3, torch.float64)


def new_state(case: Case, seed: int, folder: Path) -> TrainingState:
    """The method in its narrow form, with initial weights that depend on the seed alone."""
    data = ("data.name=folders", f'data.root="{folders(folder)}"', f"data.size={SIDE}", "data.paired=true")
    options = (f"seed={seed}", "training.precision=fp32", "training.batch_size=8", "optimizer.decay=none")
    own = [text.replace("TRUNK", str(trunk(folder))) for text in case.overrides]
    replaced = tuple(text.partition("=")[0] for text in own)
    small = [text for text in SMALL[case.recipe] if not text.startswith(replaced)]
    recipe = load_recipe(case.recipe, [*data, *options, *small, *own])
    translator = new_translator(recipe, ImageSpec({"a": 3, "b": 3}, SIDE)).to(case.dtype)
    return build(translator, recipe.optimizers, new_accelerator("fp32"), steps=100)


def folders(folder: Path) -> Path:
    """Some images: a recipe is not valid without."""
    return folder / "data" if (folder / "data").exists() else make_folders(folder / "data")


def trunk(folder: Path) -> Path:
    """A file of random weights of AlexNet, the same in every process."""
    file = folder / "alexnet.safetensors"
    if not file.exists():
        torch.manual_seed(1)
        save_file({f"features.{k}": v for k, v in AlexNet().features.state_dict().items()}, file)
    return file


def step(state: TrainingState, case: Case, seed: int, t: int, group: Processes) -> dict[str, float]:
    """One step of training; its losses, over all processes."""
    generator = torch.Generator().manual_seed(1000 * seed + t)
    size = BATCH_SIZES[case.recipe][case.dtype == torch.float32]
    shape = (size, 3, SIDE, SIDE)
    images = {d: torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1 for d in "ab"}
    everywhere = shares(size, state.translator.batch_parts, case.accumulation, group.count)
    mine = [share[group.rank] for share in everywhere]
    places = [place for share in mine for place in share]
    images = {d: x[places].to(case.dtype) for d, x in images.items()}
    micro_batches = cut_batch(images, mine, size, group.count)
    draw = counted_draw(seed, t, "cpu", case.dtype)
    losses = train_step(state, t, micro_batches, draw)
    return {name: group.mean(loss).item() for name, loss in losses.items()}


def fingerprint(state: TrainingState) -> str:
    """Of every bit of weights, buffers and averaged weights."""
    digest = hashlib.sha256()
    for tensor in [*state.translator.state_dict().values(), *state.ema.state_dict().values()]:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def results(group: Processes, seed: int, folder: Path, long: bool) -> dict[str, dict[str, object]]:
    """For every case: gradients, losses, counts of optimizer steps, and each process's fingerprint."""
    found: dict[str, dict[str, object]] = {}
    for case in (case for case in cases() if long or not case.is_long):
        state = new_state(case, seed, folder)
        losses = [step(state, case, seed, 0, group)]
        first = gradients(state)
        # Rounding, which Adam amplifies, makes later steps in fp32 no fair comparison.
        many = STEPS if case.dtype == torch.float64 else LONG if case.accumulation == 3 else 1
        losses += [step(state, case, seed, t, group) for t in range(1, many)]
        counts = {
            role: sorted({int(s["step"]) for s in optimizer.state.values()})
            for role, optimizer in state.optimizers.items()
        }
        found[str(case)] = {
            "gradients": first,
            "losses": losses[:STEPS],
            "counts": counts,
            "steps": len(losses),
            "fingerprints": group.gather([fingerprint(state)]),
            "processes": group.count,
        }
    return found


SHARES = (slice(0, 5), slice(5, 7))


def normalised() -> Tensor:
    """Samples for a batch norm."""
    return torch.randn((7, 3, 4, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 2


def batch_norms(group: Processes) -> dict[str, object]:
    """What each process's batch norm makes of its share, over all samples and local."""
    found: dict[str, object] = {}
    share = normalised()[SHARES[group.rank]]
    for name, local in (("whole", False), ("local", True)):
        norm = BatchNorm(3, local=local).double().train()
        y = norm(share).detach()
        buffers = {key.rpartition(".")[2]: buffer for key, buffer in norm.named_buffers()}
        found[name] = group.gather([{"y": y, **buffers}])
    return found


def main(out: Path, seed: int, long: bool) -> None:
    """Run every case, or those that are not long, and keep what the first process has."""
    torch.set_num_threads(1)
    with processes() as group, tempfile.TemporaryDirectory() as folder:
        found = results(group, seed, Path(folder), long)
        if group.count > 1:
            found["batch norm"] = batch_norms(group)
        if group.is_main:
            torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), long=sys.argv[3] == "long")
