"""All images in one place: what a federation would reach if data could travel."""

from counterpoint.aggregation import Nothing
from counterpoint.methods.method import Method

METHOD = Method(
    name="pooled",
    paper="baseline",
    summary="One model trained on the images of all sites together; scored at each site.",
    aggregation=Nothing(),
    statistics="local",
    pooled=True,
)
