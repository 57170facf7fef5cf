"""The package does what i2ikit, and its recipe, expect of it."""

import torch
from spectral_patchgan import Hinge, SpectralPatchGAN

from i2ikit.testing import check_adversarial_loss, check_component, check_discriminator, check_recipe


def test_both_keep_the_contract_of_their_kind() -> None:
    check_discriminator(SpectralPatchGAN)
    check_adversarial_loss(Hinge)


def test_both_are_offered_by_name() -> None:
    check_component("discriminators", "spectral-patchgan", width=8, num_layers=2)
    check_component("losses", "hinge")


def test_the_loss_is_what_the_paper_says() -> None:
    fake, real = [torch.tensor([[-2.0, 0.5]])], [torch.tensor([[2.0, 0.0]])]
    assert Hinge().discriminator(fake, real).item() == (0 + 1.5) / 2 + (0 + 1) / 2
    assert Hinge().generator(fake).item() == 0.75


def test_no_layer_stretches_its_input() -> None:
    """After some power iterations the largest singular value of each convolution's matrix is 1."""
    network = SpectralPatchGAN(3, width=8, num_layers=2)
    for _ in range(50):
        network(torch.randn(1, 3, 32, 32))
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            assert abs(layer.weight.flatten(1).svd().S[0].item() - 1) < 1e-3


def test_the_recipe_trains() -> None:
    check_recipe("spectral-patchgan/drawings")
