"""LG-FedAvg: a representation of its own at each site, a common head."""

from counterpoint.aggregation import Head
from counterpoint.methods.method import Method

METHOD = Method(
    name="lg-fedavg",
    paper="Liang, Liu, Ziyin, Allen, Auerbach, Brent, Salakhutdinov, Morency: Think Locally, Act "
    "Globally: Federated Learning with Local and Global Representations, 2020, arXiv 2001.01523",
    summary="Only the head is averaged.",
    aggregation=Head(),
    statistics="local",
)
