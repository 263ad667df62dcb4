"""FedNova: sites that take more steps do not pull the mean more."""

from counterpoint.aggregation import Normalised
from counterpoint.methods.method import Method
from counterpoint.server_update import NormalisedMean

METHOD = Method(
    name="fednova",
    paper="Wang, Liu, Liang, Joshi, Poor: Tackling the Objective Inconsistency Problem in "
    "Heterogeneous Federated Optimization, NeurIPS 2020",
    summary="Sites send their way per step; the server goes the mean way for the mean number of "
    "steps.",
    aggregation=Normalised(),
    server=NormalisedMean(),
)
