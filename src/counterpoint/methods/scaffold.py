"""SCAFFOLD: control variates against client drift."""

from dataclasses import replace

from counterpoint.local import ControlVariates
from counterpoint.methods.method import SEGMENTATION, Method
from counterpoint.server_update import AddToControl

METHOD = Method(
    name="scaffold",
    paper="Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled "
    "Averaging for Federated Learning, ICML 2020",
    summary="Every step is corrected by the difference between the federation's direction and the "
    "site's own.",
    local=ControlVariates(),
    server=AddToControl(),
    # control variates are made for SGD
    segmentation=replace(SEGMENTATION, optimizer="sgd", lr=1e-2, keep_optimizer=False),
)
