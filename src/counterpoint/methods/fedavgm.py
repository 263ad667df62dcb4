"""FedAvgM: server momentum."""

from counterpoint.methods.method import Method
from counterpoint.server_update import Momentum

METHOD = Method(
    name="fedavgm",
    paper="Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for "
    "Federated Visual Classification, 2019, arXiv 1909.06335",
    summary="All weights are averaged; the server adds momentum to the mean change.",
    server=Momentum(),
)
