"""What left each hospital: names, bytes, totals."""

from collections.abc import Sequence

import pandas as pd

from counterpoint.report.page.blocks import Block, Cell, Details, Items, Section, Table, Text
from counterpoint.report.page.runs import Arm, Study
from counterpoint.report.page.words import counted
from counterpoint.report.words import encryption_in_words, privacy_in_words, size

SHARED = {
    "all": "all weights of the network",
    "except-normalisation": "all weights but those of normalisation layers",
    "backbone": "the weights of all layers but the last",
    "head": "the weights of the last layer only",
    "normalised": "the way that all weights went in a round, divided by the steps taken, and their "
    "number",
}
"""What each aggregation lets leave, but for ``pfa``."""

BAND = {
    "local": "amplitudes of the low frequencies of the weights (their phases and all high "
    "frequencies stay at the hospital)",
    "mean": "amplitudes and phases of the low frequencies of the weights (the high ones stay at "
    "the hospital)",
    "complex": "the low frequencies of the weights as complex numbers, which is amplitudes and "
    "phases (the high ones stay at the hospital)",
}
"""What ``pfa`` lets leave, by its phase."""

BESIDE = {
    "statistics.": "means and variances of the features that normalisation layers see",
    "harmonise.amplitude": "the mean amplitude of the hospital's images, which is computed from "
    "the images themselves",
    "local.counts": "how many training images (of segmentation: pixels) it has of each class",
    "local.prototypes": "the mean feature of each class, which is computed from its images",
    "local.present": "which classes it has",
    "local.control.": "by how much the direction of its training has changed",
    "harmonise.": "what its input layer has learnt from its images",
    "local.": "what its local update adds (names that begin with “local.”)",
}
"""What else leaves, by how its name begins; the first that fits."""


def payloads(study: Study) -> Section:
    """What crossed, by arm; nothing else did."""
    sharing = [arm for arm in study.arms if len(arm.first.payloads)]
    silent = [arm for arm in study.arms if arm not in sharing]
    blocks: list[Block] = [
        Text(
            "Every array that crossed between a hospital and the server was written down as it "
            "crossed; this is the whole list, beside which scores, losses, stages and numbers of "
            "images are told. "
            "No image, no label of a single image and no file name is among it. But what crossed "
            "is made from images and labels: without encryption or noise, nothing here keeps a "
            "server from studying it."
        )
    ]
    blocks += [Text(_privacy(arm)) for arm in study.arms if "privacy" in arm.first.values]
    blocks += [Text(_encryption(arm)) for arm in study.arms if "encryption" in arm.first.values]
    if sharing:
        blocks.append(_totals(sharing))
    blocks += [Details(f"{arm.label}: {sent(arm)}", [*_arm(arm)]) for arm in sharing]
    notes = [
        f"{arm.label}: all images were brought to one place; that is no federation."
        if arm.kind == "pooled"
        else f"{arm.label}: nothing left a hospital."
        for arm in silent
    ]
    return Section("payloads", "What left each hospital", [*blocks, Items(notes)])


def sent(arm: Arm) -> str:
    """What an arm's hospitals let leave, in words: going by its settings and what crossed."""
    settings, table = arm.first.settings, arm.first.payloads
    kind = settings["aggregation.kind"]
    about = SHARED.get(kind, "see the list")
    if kind == "pfa":
        about = f"{BAND[settings['aggregation.phase']]}, and biases and the like as they are"
    found = {
        next((start for start in BESIDE if name.startswith(start)), "")
        for name in table.loc[table["direction"] == "up", "name"]
    }
    return "; ".join([about, *(words for start, words in BESIDE.items() if start in found)])


def _privacy(arm: Arm) -> str:
    told = arm.first.values["privacy"]
    return (
        f"{arm.label}: differential privacy by {privacy_in_words(told)}. The smaller epsilon is, "
        f"the less can be told; above 10 or so little is promised. Not covered: "
        f"{'; '.join(told['not_covered'])}."
    )


def _encryption(arm: Arm) -> str:
    told = encryption_in_words(arm.first.values["encryption"])
    return (
        f"{arm.label}: what crossed was {told}. Bytes below are those of the encrypted arrays, "
        "and shapes how many bytes each has."
    )


def _totals(arms: Sequence[Arm]) -> Table:
    """Bytes by arm and site, over the whole run of the first seed."""
    sites = list(dict.fromkeys(arms[0].first.payloads["site"]))
    head = ["Method", *(f"{site}, sent" for site in sites), "Received, each", "Per round, each"]
    rows: list[list[str | Cell]] = []
    for arm in arms:
        table = arm.first.payloads
        total = table.groupby(["direction", "site"])["bytes"].sum()
        up = total.get("up", pd.Series(dtype=float))
        down = total.get("down", pd.Series(dtype=float))
        rounds = int(arm.first.values["rounds"])
        cells: list[str | Cell] = [arm.label]
        cells += [Cell(size(float(up.get(site, 0)))) for site in sites]
        cells.append(size(float(down.mean()) if len(down) else 0.0))
        rows.append([*cells, f"{size(float(up.mean()) / rounds)} sent"])
    return Table("Bytes over a whole run (first seed)", head, rows)


def _arm(arm: Arm) -> list[Block]:
    table = arm.first.payloads
    layers = table.assign(layer=table["name"].map(layer_of))
    up = layers[layers["direction"] == "up"]
    sites = list(dict.fromkeys(up["site"]))
    grouped: list[list[str | Cell]] = []
    for layer, rows in up.groupby("layer", sort=False):
        of_site = rows.groupby("site")["bytes"].sum()
        cells: list[str | Cell] = [str(layer), str(rows["name"].nunique())]
        grouped.append([*cells, *(size(float(of_site.get(site, 0))) for site in sites)])
    by_layer = Table(
        f"{arm.label}: sent over the whole run, by layer of the network",
        ["Layer", "Arrays", *sites],
        grouped,
    )
    names = Details(
        f"All {counted(up['name'].nunique(), 'array')} by name", [_names(arm.label, layers)]
    )
    return [by_layer, names]


def _names(label: str, table: pd.DataFrame) -> Table:
    """A row a name and direction: shape, rounds, bytes of all sites."""
    rows: list[list[str | Cell]] = []
    for (name, direction), of_name in table.groupby(["name", "direction"], sort=False):
        shapes = list(dict.fromkeys(of_name["shape"]))
        shape = shapes[0] if len(shapes) == 1 else f"{shapes[0]} … {shapes[-1]}"
        first, last = int(of_name["round"].min()), int(of_name["round"].max())
        rounds = str(first) if first == last else f"{first} to {last}"
        way = "sent" if direction == "up" else "received"
        sites = of_name["site"].nunique()
        total = size(float(of_name["bytes"].sum()))
        rows.append([str(name), way, shape or "one number", rounds, str(sites), total])
    head = ["Name", "Direction", "Shape", "Rounds", "Hospitals", "Bytes, all hospitals"]
    return Table(f"{label}: every array that crossed", head, rows)


def layer_of(name: str) -> str:
    """The layer that an array belongs to: its name without what the array is.

    >>> layer_of("down.0.1.weight"), layer_of("convolutions.0.weight.amplitude"), layer_of("bias")
    ('down.0.1', 'convolutions.0', 'bias')
    """
    parts = name.split(".")
    ends = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    place = next((i for i, part in enumerate(parts) if part in ends), len(parts))
    return ".".join(parts[:place]) or name
