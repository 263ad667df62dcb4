"""Every site trains alone: the bar that joining a federation has to clear."""

from counterpoint.aggregation import Nothing
from counterpoint.methods.method import Method

METHOD = Method(
    name="local",
    paper="baseline",
    summary="No exchange: one model a site, trained on its own images only.",
    aggregation=Nothing(),
    statistics="local",
)
