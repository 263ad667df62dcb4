"""FedAdam: Adam at the server."""

from counterpoint.methods.method import Method
from counterpoint.server_update import Adam

METHOD = Method(
    name="fedadam",
    paper="Reddi et al.: Adaptive Federated Optimization, ICLR 2021",
    summary="All weights are averaged; the server takes the mean change as a gradient for Adam.",
    server=Adam(),
)
