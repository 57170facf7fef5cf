"""Contract checks for networks of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.backends import mkldnn

__all__ = ["check_network", "halves_agree", "images", "outputs_of", "require", "scalar_with_gradient"]

Shape = tuple[int, ...]
SAMPLES = 4


def require(holds: object, message: str) -> None:
    """Raise AssertionError with a message; unlike `assert`, also under `python -O`."""
    if not holds:
        raise AssertionError(message)


def images(*shape: int) -> Tensor:
    """Random images, values in [-1, 1]."""
    return torch.rand(SAMPLES, *shape) * 2 - 1


def check_network(
    make: Callable[[], object], inputs: Sequence[Tensor], shapes: Sequence[Shape], what: str
) -> nn.Module:
    """Check a network on inputs (N, ...): shapes, dtypes, gradients, eval mode, saving, bf16.

    Args:
        make: builds the network.
        shapes: shape of one sample of each output; () accepts any shape.
        what: name of the network, for messages.

    Returns:
        A network in eval mode, with random numbers instead of initial zeros.

    Raises:
        AssertionError: the network breaks the contract.
    """
    torch.manual_seed(0)
    network = _module(make, what)
    _check_shapes(outputs_of(network, inputs, what), len(inputs[0]), shapes, what)
    _wake(network)
    _check_gradients(network.train(), inputs, what)
    _check_single(_module(make, what).train(), inputs, what)
    network.eval()
    with torch.no_grad():
        once, again = outputs_of(network, inputs, what), outputs_of(network, inputs, what)
        require(_same(once, again), f"{what}: in eval mode the same input gives different outputs")
        alone = [torch.cat(parts) for parts in zip(*_per_sample(network, inputs, what), strict=True)]
        together = all(torch.allclose(a, b, atol=1e-4, rtol=1e-3) for a, b in zip(once, alone, strict=True))
        require(together, f"{what}: in eval mode a sample's output depends on the rest of its batch")
        _check_saving(network, make, inputs, what)
        _check_precisions(network, inputs, what)
    return network.eval()


def _module(make: Callable[[], object], what: str) -> nn.Module:
    try:
        network = make()
    except Exception as error:
        raise AssertionError(f"{what}: cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise AssertionError(f"{what}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def _wake(network: nn.Module) -> None:
    """Fill zero-initialised parameters (gains, last layers) with random numbers: zeros block gradients."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)


def outputs_of(network: nn.Module, inputs: Sequence[Tensor], what: str) -> list[Tensor]:
    """The tensors that a network returns; a single tensor becomes a list."""
    try:
        found = network(*inputs)
    except Exception as error:
        shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
        raise AssertionError(f"{what}: fails on {shapes}: {type(error).__name__}: {error}") from error
    outputs = list(found) if isinstance(found, list | tuple) else [found]
    tensors = all(isinstance(output, Tensor) for output in outputs)
    require(outputs and tensors, f"{what}: expected tensors as output, got {type(found).__name__}")
    return outputs


def _check_shapes(outputs: Sequence[Tensor], samples: int, shapes: Sequence[Shape], what: str) -> None:
    if shapes:
        require(len(outputs) == len(shapes), f"{what}: expected {len(shapes)} outputs, got {len(outputs)}")
    for output, shape in zip(outputs, shapes or [()] * len(outputs), strict=True):
        expected = (samples, *(shape or output.shape[1:]))
        got = tuple(output.shape)
        require(got == expected, f"{what}: expected an output of shape {expected}, got {got}")
        require(output.dtype == torch.float32, f"{what}: fp32 input gives {output.dtype} output")
        require(output.isfinite().all(), f"{what}: an output is not finite")


def _check_gradients(network: nn.Module, inputs: Sequence[Tensor], what: str) -> None:
    given = [x.clone().requires_grad_() for x in inputs]
    outputs = [y for y in outputs_of(network, given, what) if y.requires_grad]
    require(outputs, f"{what}: no gradient reaches input 1")
    # Random weights: the plain sum of an instance norm's output is constant.
    torch.autograd.backward([(y * torch.randn_like(y)).sum() for y in outputs])
    for n, x in enumerate(given, 1):
        require(x.grad is not None, f"{what}: no gradient reaches input {n}")
        require(_alive(x.grad), f"{what}: the gradient of input {n} is zero or not finite")
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None, f"{what}: no gradient reaches the parameter '{name}'")
            finite = parameter.grad is not None and bool(parameter.grad.isfinite().all())
            require(finite, f"{what}: the gradient of the parameter '{name}' is not finite")


def _alive(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())


def _check_single(network: nn.Module, inputs: Sequence[Tensor], what: str) -> None:
    """Check training on a single sample and on constant samples; both occur in real data."""
    for given in ([x[:1] for x in inputs], [torch.ones_like(x) for x in inputs]):
        given = [x.clone().requires_grad_() for x in given]
        outputs = outputs_of(network, given, what)
        torch.autograd.backward([y.square().sum() for y in outputs if y.requires_grad])
        finite = all(t.isfinite().all() for t in [*outputs, *(x.grad for x in given if x.grad is not None)])
        kind = "a single sample" if len(given[0]) == 1 else "constant samples"
        require(finite, f"{what}: with {kind}, outputs or gradients are not finite")


def _per_sample(network: nn.Module, inputs: Sequence[Tensor], what: str) -> list[list[Tensor]]:
    """The outputs of a network for each sample alone."""
    return [outputs_of(network, [x[n : n + 1] for x in inputs], what) for n in range(len(inputs[0]))]


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _check_saving(
    network: nn.Module, make: Callable[[], object], inputs: Sequence[Tensor], what: str
) -> None:
    loaded = _module(make, what).eval()
    loaded.load_state_dict(network.state_dict())
    same = _same(outputs_of(network, inputs, what), outputs_of(loaded, inputs, what))
    require(same, f"{what}: loading its state_dict changes its output; something is not saved")


def _check_precisions(network: nn.Module, inputs: Sequence[Tensor], what: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = outputs_of(network, inputs, what)
        if not _finite(outputs):
            # On CPUs with AMX, oneDNN's convolution (kernel 4, stride 2) reads beyond the edge of inputs
            # that are 2 or 3 px wide (torch 2.14): try PyTorch's own kernel before reporting a failure.
            with _without_onednn():
                outputs = outputs_of(network, inputs, what)
    require(_finite(outputs), f"{what}: under bf16 autocast, an output is not finite")
    single = outputs_of(network, inputs, what)
    double = outputs_of(network.double(), [x.double() for x in inputs], what)
    network.float()
    for x, y in zip(single, double, strict=True):
        kept = y.dtype == torch.float64
        require(kept, f"{what}: float64 input gives {y.dtype} output; keep the input's precision")
        off = (x - y).abs().max().item() / max(y.abs().max().item(), 1e-6)
        require(off < 1e-3, f"{what}: fp32 and float64 outputs differ by {off:.1g} (relative)")


def _finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@contextmanager
def _without_onednn() -> Iterator[None]:
    enabled, *_ = mkldnn.set_flags(_enabled=False, _fp32_precision=None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        mkldnn.set_flags(_enabled=enabled, _fp32_precision=None)  # type: ignore[no-untyped-call]


def scalar_with_gradient(loss: Callable[..., Tensor], given: Sequence[Tensor], what: str) -> list[Tensor]:
    """The gradients of a loss with respect to each given tensor.

    Raises:
        AssertionError: the loss is not a finite scalar, or a gradient is missing or not finite.
    """
    leaves = [x.clone().requires_grad_() for x in given]
    value = loss(*leaves)
    is_scalar = isinstance(value, Tensor) and value.shape == ()
    require(is_scalar, f"{what}: expected a scalar tensor, got {getattr(value, 'shape', value)}")
    require(value.isfinite(), f"{what}: is {value.item()}")
    require(value.requires_grad, f"{what}: has no gradient")
    torch.autograd.backward(value)
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
    require(all(g.isfinite().all() for g in gradients), f"{what}: its gradient is not finite")
    return gradients


def halves_agree(loss: Callable[..., Tensor], given: Sequence[Tensor], what: str) -> None:
    """Check that a loss is a mean over samples, because several processes average their losses."""
    half = len(given[0]) // 2
    parts = [loss(*(x[:half] for x in given)), loss(*(x[half:] for x in given))]
    whole, mean = loss(*given).item(), (parts[0] + parts[1]).item() / 2
    close = abs(whole - mean) <= 1e-4 * max(abs(whole), abs(mean), 1e-3)
    require(
        close,
        f"{what}: {whole:.6g} for a batch, but {mean:.6g} on average for its two halves; a loss must be a "
        "mean over its samples, because several processes split a batch",
    )
