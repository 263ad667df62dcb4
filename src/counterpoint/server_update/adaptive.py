"""Server optimisers (Reddi et al.: Adaptive Federated Optimization, ICLR 2021, algorithm 2).

The mean change of the weights in a round, delta, is a step's pseudo-gradient:

    m = beta1 m + (1 - beta1) delta,    x = x + lr m / (sqrt(v) + tau)

with v = v + delta^2 (Adagrad), beta2 v + (1 - beta2) delta^2 (Adam) or
v - (1 - beta2) delta^2 sign(v - delta^2) (Yogi); v begins at tau^2. FedAvgM (Hsu et al., 2019,
arXiv 1909.06335) is m = beta1 m + delta, x = x + lr m.
"""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.payload import Payload
from counterpoint.ranges import Fraction, Positive
from counterpoint.server_update.mean import NOT_WEIGHTS


@dataclass(frozen=True)
class Momentum:
    """FedAvgM: the server goes on in the direction of the rounds before."""

    kind: ClassVar[str] = "momentum"
    lr: Positive = 1.0
    beta1: Fraction = 0.9

    def update(
        self, mean: Payload, before: Payload, memory: Payload, taking_part: float
    ) -> tuple[Payload, Payload]:
        """Move every weight by the momentum of its mean change."""
        down, kept = dict(mean), dict[str, Tensor]()
        for name in weights(mean):
            x = before[name].double()
            m = kept[f"m.{name}"] = self.first(memory.get(f"m.{name}"), mean[name].double() - x)
            down[name] = (x + self.lr * m).to(mean[name].dtype)
        return down, kept

    def first(self, m: Tensor | None, delta: Tensor) -> Tensor:
        """The momentum after another change."""
        return delta if m is None else self.beta1 * m + delta


@dataclass(frozen=True)
class Adam:
    """FedAdam. ``tau`` bounds how much a hardly changing weight is sped up."""

    kind: ClassVar[str] = "adam"
    lr: Positive = 1e-2
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    tau: Positive = 1e-3

    def update(
        self, mean: Payload, before: Payload, memory: Payload, taking_part: float
    ) -> tuple[Payload, Payload]:
        """Move every weight by an adaptive step along its mean change."""
        down, kept = dict(mean), dict[str, Tensor]()
        for name in weights(mean):
            x = before[name].double()
            delta = mean[name].double() - x
            m = memory.get(f"m.{name}", 0 * delta)
            v = memory.get(f"v.{name}", 0 * delta + self.tau**2)
            m = kept[f"m.{name}"] = self.beta1 * m + (1 - self.beta1) * delta
            v = kept[f"v.{name}"] = self.second(v, delta.square())
            down[name] = (x + self.lr * m / (v.sqrt() + self.tau)).to(mean[name].dtype)
        return down, kept

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after another squared change."""
        return self.beta2 * v + (1 - self.beta2) * square


@dataclass(frozen=True)
class Yogi(Adam):
    """FedYogi: the second moment grows and shrinks by the same small steps."""

    kind: ClassVar[str] = "yogi"

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after another squared change."""
        return v - (1 - self.beta2) * square * (v - square).sign()


@dataclass(frozen=True)
class Adagrad(Adam):
    """FedAdagrad: the second moment only grows; no momentum, as in the paper."""

    kind: ClassVar[str] = "adagrad"
    beta1: Fraction = 0.0

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after another squared change."""
        return v + square


def weights(mean: Payload) -> list[str]:
    """Names of the weights in a mean: no running statistics, amplitudes or the like."""
    return [name for name in mean if not name.startswith(NOT_WEIGHTS)]
