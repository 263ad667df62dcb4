"""FedProx: local training is held near the weights at the start of the round."""

from counterpoint.local import Proximal
from counterpoint.methods.method import Method

METHOD = Method(
    name="fedprox",
    paper="Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020",
    summary="FedAvg with a proximal term mu/2 ||w - w_start||^2 in the local loss.",
    local=Proximal(mu=0.01),
)
