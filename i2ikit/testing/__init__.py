"""Checks that a component or a method keeps its contract: for your plugin's tests, and for ours.

    from i2ikit.testing import check_component

    def test_my_norm() -> None:
        check_component("norms", "my-norm")

`check_norm(MyNorm)` and its like do the same with a class at hand, and tell a type checker what its
constructor and its methods should look like. All raise AssertionError, with a sentence that says what
was expected and what there was.
"""

from i2ikit.testing.components import (
    check_adaptive_norm,
    check_adversarial_loss,
    check_component,
    check_content_encoder,
    check_decoder,
    check_discriminator,
    check_generator,
    check_image_loss,
    check_latent_encoder,
    check_norm,
    check_reconstruction_loss,
    check_style_encoder,
)
from i2ikit.testing.measuring import check_dataset, check_metric
from i2ikit.testing.translators import check_recipe, check_translator

__all__ = [
    "check_adaptive_norm",
    "check_adversarial_loss",
    "check_component",
    "check_content_encoder",
    "check_dataset",
    "check_decoder",
    "check_discriminator",
    "check_generator",
    "check_image_loss",
    "check_latent_encoder",
    "check_metric",
    "check_norm",
    "check_recipe",
    "check_reconstruction_loss",
    "check_style_encoder",
    "check_translator",
]
