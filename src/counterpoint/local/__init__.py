"""How a site trains in a round: one file a local update."""

from counterpoint.local.adapted import Adapted
from counterpoint.local.alternating import Alternating
from counterpoint.local.contrastive import Contrastive
from counterpoint.local.control import ControlVariates
from counterpoint.local.deputy import DeputyTransfer
from counterpoint.local.ditto import Ditto
from counterpoint.local.plain import Plain
from counterpoint.local.prototypes import PrototypeDeputy
from counterpoint.local.proximal import Proximal
from counterpoint.local.training import LocalUpdate, Training

LOCAL_UPDATES: dict[str, type[LocalUpdate]] = {
    choice.kind: choice
    for choice in (
        Plain,
        Proximal,
        Contrastive,
        ControlVariates,
        Alternating,
        Ditto,
        Adapted,
        DeputyTransfer,
        PrototypeDeputy,
    )
}

__all__ = [
    "LOCAL_UPDATES",
    "Adapted",
    "Alternating",
    "Contrastive",
    "ControlVariates",
    "DeputyTransfer",
    "Ditto",
    "LocalUpdate",
    "Plain",
    "PrototypeDeputy",
    "Proximal",
    "Training",
]
