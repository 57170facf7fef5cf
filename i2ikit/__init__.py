"""i2ikit: train networks that translate an image into many plausible images of another domain.

    run = i2ikit.load("runs/one")
    pictures = run.translate("outline.png", styles=8)

Names are imported at their first use, so that `import i2ikit` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from i2ikit.packages.shield import shield_metadata

if TYPE_CHECKING:
    from i2ikit.comparison import compare
    from i2ikit.draws import Draw
    from i2ikit.errors import I2IKitError
    from i2ikit.evaluation import evaluate
    from i2ikit.exchange.export import export
    from i2ikit.exchange.hub import push
    from i2ikit.exchange.import_run import import_weights
    from i2ikit.loading import load
    from i2ikit.model import Model
    from i2ikit.recipe import Recipe, load_recipe
    from i2ikit.registry import Spec, registries
    from i2ikit.run import Run
    from i2ikit.start import resume, train
    from i2ikit.translator import Direction, Given, ImageSpec, Kept, Phase, Result, Translator

__version__ = "0.1.0"

__all__ = [
    "Direction",
    "Draw",
    "Given",
    "I2IKitError",
    "ImageSpec",
    "Kept",
    "Model",
    "Phase",
    "Recipe",
    "Result",
    "Run",
    "Spec",
    "Translator",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "import_weights",
    "load",
    "load_recipe",
    "push",
    "registries",
    "resume",
    "train",
]

_HOMES = {
    "comparison": ("compare",),
    "draws": ("Draw",),
    "errors": ("I2IKitError",),
    "evaluation": ("evaluate",),
    "exchange.export": ("export",),
    "exchange.hub": ("push",),
    "exchange.import_run": ("import_weights",),
    "loading": ("load",),
    "model": ("Model",),
    "recipe": ("Recipe", "load_recipe"),
    "registry": ("Spec", "registries"),
    "run": ("Run",),
    "start": ("resume", "train"),
    "translator": ("Direction", "Given", "ImageSpec", "Kept", "Phase", "Result", "Translator"),
}

shield_metadata()  # before torch is imported, which reads package metadata


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return vars(importlib.import_module(f"i2ikit.{home}"))[name]
    raise AttributeError(f"module 'i2ikit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, *globals()]
