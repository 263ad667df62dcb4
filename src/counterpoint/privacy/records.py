"""Gradients of each image alone, by Opacus: what noise on single images needs of a network."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from counterpoint.data.batches import layout, split_into_batches
from counterpoint.errors import SettingsError, first_line
from counterpoint.layers import running_statistics
from counterpoint.privacy.choice import RecordNoise
from counterpoint.privacy.gaussian import Source, noised, seeded, uniform

INSTALL = "privacy 'records' needs Opacus 1.6 or newer: pip install 'counterpoint[privacy]'"

NOISED: Mapping[str, tuple[str, ...]] = {
    "plain": ("model",),
    "adapted": ("model",),
    "ditto": ("global",),
    "deputy": ("personal", "deputy"),
}
"""Local updates whose steps can be noised, and the models of which.

The others learn from the images in ways that clipping single gradients does not bound, or add
terms to the loss that are of no image. A deputy learns from the personal model, so both are noised.
"""


def steps_of(images: int, batch_size: int) -> int:
    """Steps of an epoch: as many as without noise.

    >>> steps_of(100, 16)
    7
    """
    return len(split_into_batches(images, batch_size))


@dataclass(frozen=True)
class Chance:
    """How images come into batches: each into every batch by itself, with probability 1/steps.

    So batches differ in size and may be empty, and an image may come twice in an epoch or not at
    all. That nobody else knows who came is part of the protection.

    Attributes:
        images: how many there are.
        steps: of an epoch.
        source: of random bytes.
    """

    images: int
    steps: int
    source: Source

    @property
    def batch(self) -> float:
        """Expected number of images in a batch."""
        return self.images / self.steps

    def samples(self) -> Iterator[npt.NDArray[np.int64]]:
        """The images of each batch of an epoch, by their number."""
        for _ in range(self.steps):
            yield np.flatnonzero(uniform(self.images, self.source) * self.steps < 1)

    def seed(self) -> int:
        """A seed for what else is drawn at a site in training."""
        return int.from_bytes(self.source(7), "big")


def image_by_image(loss: Any) -> Any:
    """A loss of outputs and target as the mean of the losses of each image alone.

    Then no image's share depends on the others, by a common denominator for example.
    """

    def mean(outputs: Tensor, target: Tensor) -> Tensor:
        if not len(outputs):
            return outputs.sum()
        each = [loss(one[None], its[None]) for one, its in zip(outputs, target, strict=True)]
        return torch.stack(each).mean()

    return mean


class NoisedGradient:
    """The gradient of one model's batch: of each image alone, clipped, added up and noised.

    A context: inside it, Opacus watches the model.

    Raises:
        SettingsError: if Opacus is not installed.
    """

    def __init__(self, model: nn.Module, privacy: RecordNoise, chance: Chance) -> None:
        self.model, self.privacy, self.chance = model, privacy, chance
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._sum: dict[str, Tensor] = {}
        self._hooks = _hooks_class()

    def __enter__(self) -> "NoisedGradient":
        for layer in self.model.modules():
            if getattr(layer, "inplace", False):  # what is watched must not be overwritten
                layer.inplace = False  # type: ignore[assignment]
        self._watching = self._hooks(self.model, loss_reduction="mean")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watching.cleanup()
        for layer in self.model.modules():
            for left in ("activations", "max_batch_len"):
                if hasattr(layer, left):
                    delattr(layer, left)

    def each(self, loss: Tensor) -> dict[str, Tensor]:
        """Gradient of each image's loss by name, (N, *shape); ``loss`` is their mean."""
        _backward(loss)
        found = {n: p.grad_sample for n, p in self.parameters.items()}  # type: ignore[attr-defined]
        for parameter in self.parameters.values():
            parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def take(self, loss: Tensor, complete: bool) -> None:
        """Add images to the batch; once it is ``complete``, leave its gradient in ``.grad``."""
        for name, sum_of_clipped in clipped_sum(self.each(loss), self.privacy.clip).items():
            self._sum[name] = self._sum.get(name, 0) + sum_of_clipped
        if not complete:
            return
        whole = {n: self._sum.get(n, torch.zeros_like(p)) for n, p in self.parameters.items()}
        self._sum = {}
        std = self.privacy.noise * self.privacy.clip
        for name, gradient in noised(whole, std, self.chance.source).items():
            self.parameters[name].grad = (gradient / self.chance.batch).to(self.parameters[name])


def clipped_sum(gradients: Mapping[str, Tensor], clip: float) -> dict[str, Tensor]:
    """Sum over images of gradients (N, ...), each image's first scaled to norm ``clip`` or less.

    One that is not finite has no norm and counts as 0, so that it can't undo the others.

    >>> clipped_sum({"w": torch.tensor([[3.0, 4.0], [0.3, 0.4]])}, clip=1.0)
    {'w': tensor([0.9000, 1.2000])}
    """
    if not gradients:
        return {}
    parts = [g.double().square().unsqueeze(-1).flatten(1).sum(1) for g in gradients.values()]
    squares = torch.stack(parts).sum(0)
    factors = (clip / squares.sqrt().clamp(min=1e-300)).clamp(max=1)
    whole = squares.isfinite()
    if not bool(whole.all()):
        factors, gradients = factors[whole], {n: g[whole] for n, g in gradients.items()}
    return {n: torch.einsum("n,n...->...", factors.to(g), g) for n, g in gradients.items()}


def require_images_apart(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a network, in its layout of training, in which images of a batch are not apart.

    Raises:
        SettingsError: with what to do; also if Opacus is not installed.
    """
    mixing = [name for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)]
    if mixing or running_statistics(network):
        where = mixing[0] if mixing else next(iter(running_statistics(network)))
        raise SettingsError(
            f"the network's layer '{where}' normalises by the other images of a batch, or keeps "
            "statistics of them, so that what one image changes has no bound; with privacy "
            "'records' use --statistics group, which puts group norm there"
        )
    trial = copy.deepcopy(network).train()
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=layout(images.dim()))
    one, other = images[:2], images[[0, 2]]
    before = {name: buffer.clone() for name, buffer in trial.named_buffers()}
    try:
        with torch.random.fork_rng(devices=[]):
            found = [_gradients(trial, pair) for pair in (one, other)]
    except SettingsError:
        raise
    except Exception as error:  # whatever a network may do that hooks can't follow
        reason = first_line(error)
        raise SettingsError(
            f"Opacus can't take this network's gradients image by image ({reason}); take another "
            "--model, or privacy 'payload'"
        ) from error
    moved = [
        name
        for name, buffer in trial.named_buffers()
        if buffer.is_floating_point() and not buffer.equal(before[name])
    ]
    if moved:
        raise SettingsError(
            f"the network's '{moved[0]}' gathers numbers of the images as they pass, which take no "
            "noise; with privacy 'records' take another --model"
        )
    (first, whole), (again, _) = found
    size = torch.stack([g.norm() for g in whole.values()]).norm()
    if _far({n: g[0] for n, g in first.items()}, {n: g[0] for n, g in again.items()}) > 1e-3 * size:
        raise SettingsError(
            "in this network what one image changes depends on the other images of its batch, "
            "which privacy 'records' can't bound; take another --model, or privacy 'payload'"
        )
    if _far({n: g.mean(0) for n, g in first.items()}, whole) > 1e-3 * size:
        raise SettingsError(
            "the gradients of single images, as Opacus takes them, do not add up to the "
            "gradient of this network; take another --model, or privacy 'payload'"
        )


def _gradients(network: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of each image, and of their mean, of a loss made up for the trial."""
    torch.manual_seed(0)
    network.zero_grad()
    with NoisedGradient(network, RecordNoise(), Chance(len(images), 1, seeded(0))) as gradient:
        _backward(network(images).flatten(1).square().sum(1).mean())
        used = {n: p for n, p in gradient.parameters.items() if p.grad is not None}
        each = {n: p.grad_sample for n, p in used.items()}  # type: ignore[attr-defined]
    return each, {n: p.grad.clone() for n, p in used.items() if p.grad is not None}


def _far(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    far: Tensor = torch.stack([(one[name] - other[name]).norm() for name in other]).norm()
    return far


def _backward(loss: Tensor) -> None:
    with warnings.catch_warnings():
        # that images need no gradient, and in which layout gradients come
        warnings.simplefilter("ignore", UserWarning)
        loss.backward()  # type: ignore[no-untyped-call]


def _hooks_class() -> Any:
    """Opacus's hooks that keep the gradients of single images.

    They walk through an image by strides that fit PyTorch's usual layout only; those of
    channels-last images came out wrong (Opacus 1.6.0).
    """
    try:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
    except ImportError as error:
        raise SettingsError(INSTALL) from error

    class UsualLayout(GradSampleHooks):  # type: ignore[misc]
        """The same, whatever the layout in which a network computes."""

        def rearrange_grad_samples(self, **given: Any) -> tuple[list[Tensor], Tensor]:
            activations, backprops = super().rearrange_grad_samples(**given)
            return [tensor.contiguous() for tensor in activations], backprops.contiguous()

    return UsualLayout


def epsilon_of_steps(noise: float, share: float, steps: int, delta: float) -> float:
    """Epsilon of ``steps`` noised steps on batches drawn with probability ``share``.

    Opacus's accountant in Renyi's measure (Mironov et al., arXiv 1908.10530): an upper bound.
    """
    if not steps:
        return 0.0
    if not noise:
        return float("inf")
    try:
        from opacus.accountants.analysis import rdp
    except ImportError as error:
        raise SettingsError(INSTALL) from error
    orders = [*(1 + x / 100 for x in range(1, 10)), *(1 + x / 10 for x in range(1, 100))]
    orders += [*range(12, 64), *range(64, 1024, 16)]
    spent = rdp.compute_rdp(q=share, noise_multiplier=noise, steps=steps, orders=orders)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an order at the end fits best
        return float(rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)[0])
