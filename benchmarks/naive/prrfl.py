"""PRR-FL as a first implementation does it, from the description of how the released code works.

Every image is decoded in every epoch and augmented alone; both models are scored on the training
set, with graphs built, before every local epoch, and on the test set after it; the server
transforms every layer in complex128; everything is eager float32, one client after another.
"""

import copy

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.naive.images import Listed, loader
from counterpoint.models.slim_vgg16 import SlimVGG16

Spectrum = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


class Site:
    """A client: its images by part, a personal model and a deputy."""

    def __init__(self, images: dict[str, Listed], network: nn.Module) -> None:
        self.images = images
        self.personal, self.deputy = copy.deepcopy(network), copy.deepcopy(network)


def score(model: nn.Module, images: Listed, size: int, rng: np.random.Generator | None) -> float:
    """Macro-F1; nobody said that no graph is needed."""
    model.eval()
    found, wanted = [], []
    for batch, labels in loader(images, size, 16, rng, augment=rng is not None):
        output = model(batch)
        F.cross_entropy(output, labels)
        found.append(output.argmax(1).numpy())
        wanted.append(labels.numpy())
    model.train()
    score: float = f1_score(np.concatenate(wanted), np.concatenate(found), average="macro")
    return score


def distil(teacher: Tensor, student: Tensor) -> Tensor:
    """KL divergence, mean over the batch."""
    target = teacher.detach().softmax(1)
    return F.kl_div(student.log_softmax(1), target, reduction="batchmean")


def train(site: Site, size: int, epochs: int, lr: float, rng: np.random.Generator) -> None:
    """The local epochs of a round."""
    models = (site.personal, site.deputy)
    optimizers = [torch.optim.SGD(m.parameters(), lr=lr, weight_decay=1e-6) for m in models]
    stage = 0
    for _ in range(epochs):
        personal, deputy = (score(m, site.images["train"], size, rng) for m in models)
        if stage == 0 or deputy < 0.7 * personal:
            stage = 1
        elif stage == 1 or deputy < 0.9 * personal:
            stage = 2
        else:
            stage = 3
        for images, labels in loader(site.images["train"], size, 16, rng, augment=True):
            z = [model(images) for model in models]
            losses = [F.cross_entropy(output, labels) for output in z]
            if stage > 1:
                losses[0] = losses[0] + distil(z[1], z[0])
            if stage < 3:
                losses[1] = losses[1] + distil(z[0], z[1])
            for optimizer, loss in zip(optimizers, losses, strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        score(site.personal, site.images["test"], size, None)


def transform(weight: Tensor) -> Spectrum:
    """Amplitude and phase of the whole plane, centred."""
    array = weight.detach().double().numpy()
    if array.ndim == 4:
        n, c, d1, d2 = array.shape
        array = array.transpose(1, 2, 3, 0).reshape(c * d1, d2 * n)
    spectrum = np.fft.fftshift(np.fft.fft2(array))
    return np.abs(spectrum), np.angle(spectrum)


def band(shape: tuple[int, ...], radius: float) -> tuple[slice, slice]:
    """Rows and columns of the low frequencies in a centred spectrum."""
    (h, w), (bh, bw) = shape, (int(side * radius / 2) for side in shape)
    return slice(h // 2 - bh, h // 2 + bh), slice(w // 2 - bw, w // 2 + bw)


def back(spectrum: Spectrum, like: Tensor) -> Tensor:
    """The weight with this spectrum."""
    amplitude, phase = spectrum
    changed = np.real(np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))))
    if like.dim() == 4:
        n, c, d1, d2 = like.shape
        changed = changed.reshape(c, d1, d2, n).transpose(3, 0, 1, 2)
    return torch.from_numpy(changed.astype(np.float32))


def communicate(sites: list[Site], radius: float) -> None:
    """At the server: the low-frequency amplitude of every layer's weights is averaged."""
    states = [site.deputy.state_dict() for site in sites]
    for name, tensor in states[0].items():
        if tensor.dim() not in (2, 4):  # batch norm stays; there are no biases
            continue
        first = [transform(state[name]) for state in states]
        places = band(first[0][0].shape, radius)
        mean = np.mean([amplitude[places] for amplitude, _ in first], axis=0)
        for state in states:  # transformed once more, as released
            amplitude, phase = transform(state[name])
            amplitude[places] = mean
            state[name].copy_(back((amplitude, phase), state[name]))


def run(
    images: list[dict[str, Listed]], classes: int, size: int, rounds: int, epochs: int, seed: int
) -> float:
    """Train; the mean test macro-F1 of the personal models in the end."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = SlimVGG16(classes)
    sites = [Site(of, network) for of in images]
    tested: list[float] = []
    for round in range(rounds):
        for site in sites:
            train(site, size, epochs, 1e-2 * 0.5 ** (round // 5), rng)
        communicate(sites, 0.7 + round / rounds * 0.25)
        for site in sites:
            score(site.personal, site.images["validation"], size, None)
        tested = [score(site.personal, site.images["test"], size, None) for site in sites]
    return float(np.mean(tested))
