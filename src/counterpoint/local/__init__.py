"""How a site trains in a round: one file a local update."""

from counterpoint.local.deputy import DeputyTransfer
from counterpoint.local.plain import Plain
from counterpoint.local.proximal import Proximal
from counterpoint.local.training import LocalUpdate, Training

LOCAL_UPDATES: dict[str, type[LocalUpdate]] = {
    choice.kind: choice for choice in (Plain, Proximal, DeputyTransfer)
}

__all__ = ["LOCAL_UPDATES", "DeputyTransfer", "LocalUpdate", "Plain", "Proximal", "Training"]
