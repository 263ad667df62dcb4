"""What the server does with the mean before it goes down: one file a server update."""

from counterpoint.server_update.adaptive import Adagrad, Adam, Momentum, Yogi
from counterpoint.server_update.control import AddToControl
from counterpoint.server_update.mean import Mean, ServerUpdate
from counterpoint.server_update.normalised import NormalisedMean

SERVER_UPDATES: dict[str, type[ServerUpdate]] = {
    choice.kind: choice
    for choice in (Mean, Momentum, Adam, Yogi, Adagrad, NormalisedMean, AddToControl)
}

__all__ = [
    "SERVER_UPDATES",
    "Adagrad",
    "Adam",
    "AddToControl",
    "Mean",
    "Momentum",
    "NormalisedMean",
    "ServerUpdate",
    "Yogi",
]
