"""Clipping, Gaussian noise and what they are worth: all mathematics of differential privacy.

What is protected is measured by two numbers. Whatever an attacker wants to conclude, with the data
in question or without them, the probabilities differ by a factor of e^epsilon at most, but for a
remainder delta (Dwork and Roth, 2014). Large is weak: e^1 is 2.7, e^8 about 3000.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.errors import TrainingError
from counterpoint.payload import Payload

Source = Callable[[int], bytes]
"""source(n) gives n random bytes: `os.urandom`, or :func:`seeded`."""


def seeded(seed: int) -> Source:
    """Random bytes that are the same each time, for simulation only.

    >>> seeded(1)(4) == seeded(1)(4) != seeded(2)(4)
    True
    """
    return np.random.Generator(np.random.PCG64(seed)).bytes


def uniform(count: int, source: Source) -> npt.NDArray[np.float64]:
    """``count`` independent numbers from all of (0, 1), 52 bits each.

    Not from a generator with a seed of 32 bits, as PyTorch's is on the CPU: who sees the result
    could try all seeds.
    """
    whole = np.frombuffer(source(8 * count), dtype="<u8") >> np.uint64(12)
    return (whole.astype(np.float64) + 0.5) * 2.0**-52


def gaussian(shape: Iterable[int], source: Source) -> Tensor:
    """Independent standard Gaussian numbers, float64."""
    from scipy.special import ndtri  # SciPy is slow to import, and most runs have no noise

    shape = tuple(shape)
    return torch.from_numpy(ndtri(uniform(math.prod(shape), source))).reshape(shape)


def norm(tensors: Mapping[str, Tensor]) -> float:
    """L2 norm over all tensors together.

    >>> norm({"a": torch.tensor([2.0]), "b": torch.tensor([[1.0, 2.0]])})
    3.0
    """
    return math.sqrt(sum(t.double().square().sum().item() for t in tensors.values()))


def clipped(tensors: Mapping[str, Tensor], clip: float) -> Payload:
    """All tensors by one factor, so that their common norm is ``clip`` at most; float64.

    Raises:
        TrainingError: if a number is not finite.

    >>> clipped({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, clip=1.0)
    {'a': tensor([0.6000], dtype=torch.float64), 'b': tensor([0.8000], dtype=torch.float64)}
    """
    size = norm(tensors)
    if not math.isfinite(size):  # no factor bounds what is not a number
        raise TrainingError("what the site would send is not finite, so that it can't be clipped")
    factor = min(1.0, clip / max(size, 1e-300))
    return {name: tensor.double() * factor for name, tensor in tensors.items()}


def noised(tensors: Mapping[str, Tensor], std: float, source: Source) -> Payload:
    """Tensors with Gaussian noise of standard deviation ``std``; float64, on the CPU.

    Values and noise are rounded to whole multiples of about 1e-9 ``std``, so that the last bits of
    a sum, which only some values can give, tell nothing of the value (Mironov: On significance of
    the least significant bits for differential privacy, CCS 2012). Without noise, all stays as it
    is.

    >>> noised({"a": torch.tensor([1.5])}, std=0.0, source=seeded(1))
    {'a': tensor([1.5000], dtype=torch.float64)}
    """
    exact = {name: tensor.detach().cpu().double() for name, tensor in tensors.items()}
    if not std:
        return exact
    grid = 2.0 ** (math.floor(math.log2(std)) - 30)
    return {
        name: ((value / grid).round() + (gaussian(value.shape, source) * std / grid).round()) * grid
        for name, value in exact.items()
    }


def epsilon_of(distances: Iterable[float], delta: float) -> float:
    """Epsilon, exactly, of Gaussian mechanisms one after the other; infinite without noise.

    ``distances`` holds for each how far the data in question can move it, in standard deviations
    of its noise. Together they are one mechanism with distance mu = sqrt(sum of squares), and
    delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) (Balle and Wang, ICML 2018,
    theorem 8; Dong, Roth, Su, JRSS B 2022, corollary 3.3).

    >>> round(epsilon_of([1.0], delta=1e-5), 3)
    4.377
    >>> epsilon_of([0.5] * 4, delta=1e-5) == epsilon_of([1.0], delta=1e-5)
    True
    """
    mu = math.sqrt(sum(distance**2 for distance in distances))
    if math.isinf(mu):
        return math.inf
    if mu == 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    from scipy.optimize import brentq  # as above

    enough = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # by the tail of a Gaussian
    return float(brentq(lambda epsilon: delta_of(epsilon, mu) - delta, 0.0, enough, xtol=1e-9))


def delta_of(epsilon: float, mu: float) -> float:
    """Delta of a Gaussian mechanism at ``epsilon``, see :func:`epsilon_of`."""
    from scipy.special import log_ndtr, ndtr  # as above

    more = ndtr(mu / 2 - epsilon / mu)
    return float(more - math.exp(min(epsilon + log_ndtr(-mu / 2 - epsilon / mu), 0.0)))
