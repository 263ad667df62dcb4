"""Ditto: a personal model that is held near the global one."""

from counterpoint.local import Ditto
from counterpoint.methods.method import Method

METHOD = Method(
    name="ditto",
    paper="Li, Hu, Beirami, Smith: Ditto: Fair and Robust Federated Learning Through "
    "Personalization, ICML 2021",
    summary="FedAvg's global model and, beside it, a personal one that is drawn to it.",
    local=Ditto(strength=1.0),
)
