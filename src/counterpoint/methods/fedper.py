"""FedPer: a common body, a head of its own at each site."""

from counterpoint.aggregation import Backbone
from counterpoint.methods.method import Method

METHOD = Method(
    name="fedper",
    paper="Arivazhagan, Aggarwal, Singh, Choudhary: Federated Learning with Personalization "
    "Layers, 2019, arXiv 1912.00818",
    summary="All weights but the head's are averaged; both are trained together.",
    aggregation=Backbone(),
)
