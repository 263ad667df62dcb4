"""FedBN: normalisation layers stay at the site."""

from counterpoint.aggregation import ExceptNormalisation
from counterpoint.methods.method import Method

METHOD = Method(
    name="fedbn",
    paper="Li et al., FedBN: Federated Learning on Non-IID Features via Local Batch "
    "Normalization, ICLR 2021",
    summary="FedAvg of everything but normalisation layers, which are found by module type; "
    "one model a site.",
    aggregation=ExceptNormalisation(),
    statistics="local",
)
