"""FedRep: a common body, and a head that is trained first."""

from counterpoint.aggregation import Backbone
from counterpoint.local import Alternating
from counterpoint.methods.method import Method

METHOD = Method(
    name="fedrep",
    paper="Collins, Hassani, Mokhtari, Shakkottai: Exploiting Shared Representations for "
    "Personalized Federated Learning, ICML 2021",
    summary="All weights but the head's are averaged; in a round the head is trained first, then "
    "the body.",
    local=Alternating(body_epochs=1),
    aggregation=Backbone(),
)
