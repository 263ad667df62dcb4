"""Federated averaging, with batch norm's running statistics averaged as they should be."""

from counterpoint.methods.method import Method

METHOD = Method(
    name="fedavg",
    paper="McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized "
    "Data, AISTATS 2017",
    summary="Plain local training; all weights and the running statistics are averaged.",
)
