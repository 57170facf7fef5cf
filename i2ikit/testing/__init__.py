"""Checks that a component keeps its contract, for the tests of plugins and of i2ikit.

    from i2ikit.testing import check_component

    def test_my_norm() -> None:
        check_component("norms", "my-norm")

`check_norm(MyNorm)` and the like do the same for a class; they also let a type checker verify its
constructor and methods. All raise AssertionError with a message that states what was expected and what
was found.
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
    check_optimizer,
    check_reconstruction_loss,
    check_style_encoder,
)
from i2ikit.testing.measuring import check_dataset, check_metric
from i2ikit.testing.phases import phase_input
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
    "check_optimizer",
    "check_recipe",
    "check_reconstruction_loss",
    "check_style_encoder",
    "check_translator",
    "phase_input",
]
