"""What is said of an exported model: for programs in the file, for people beside it.

Nothing of a patient, no image's file name and no folder above the data gets into it; the name of
the table or folder does.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoint.data import datasets
from counterpoint.data.downloads import DOWNLOADS
from counterpoint.data.own import patients_known
from counterpoint.errors import CounterpointError
from counterpoint.exporting.format import Card, Format
from counterpoint.prediction.chosen import Chosen
from counterpoint.predictor import INPUT_RANGE
from counterpoint.report.words import heading, leaks, number
from counterpoint.results import Result, shown_metrics
from counterpoint.settings import read_file

if TYPE_CHECKING:
    from counterpoint.exporting.api import Exported

_FROM_RESULTS = (
    *("data", "protocol", "holdout", "rounds", "chosen_round", "chosen_from", "score", "metrics"),
    *("statistics", "versions"),
)


def full_card(chosen: Chosen) -> Card:
    """The model's card with what its run knows: data, sites, scores with intervals, versions.

    Scores are those of the model's own site, or of all sites for a global model.
    """
    card = chosen.card | {
        "output": "logits and probabilities of the classes",
        "preprocessing": preprocessing(chosen),
        "exported_by": f"counterpoint {version('counterpoint')}",
    }
    if chosen.run is None:
        return card
    try:
        results = Result(chosen.run).results
    except CounterpointError:  # the folder was cut down to its models
        return card
    site = card.get("site")
    shown = [name for name in results["test"] if site in (None, name)]
    training = {name: results[name] for name in _FROM_RESULTS if name in results}
    training["metrics"] = shown_metrics(results)
    training["data"] = Path(str(training["data"])).name
    training["sites"] = [name for name in results["test"] if name != results["holdout"]]
    training["leaks"] = any(leaks(note) for note in results["data_notes"])
    training["patients"] = patients_known(results["data_notes"])
    settings = read_file(chosen.run / "settings.yaml")
    training["finetune_epochs"] = settings.get("schedule", {}).get("finetune_epochs", 0)
    training["licence"] = _licence(settings)
    scores = {name: results["test"][name] for name in shown}
    intervals = {name: results["intervals"][name] for name in shown}
    return card | {"training": training, "test": scores, "intervals": intervals}


def _licence(settings: Mapping[str, Any]) -> str | None:
    """Of the images of a data set with a name; a folder may be called the same."""
    name = settings.get("data", {}).get("name")
    return DOWNLOADS[name].licence if name in DOWNLOADS and name in datasets() else None


def preprocessing(chosen: Chosen) -> str:
    """How files become the model's input, in words."""
    size, form = chosen.size, chosen.form
    sides = "x".join([str(size)] * (len(chosen.card["shape"]) - 1))
    photographs = (
        "Photographs: upright by their EXIF orientation, RGB (grey is repeated, transparency "
        "dropped, a TIFF in which 0 is white turned), resized to "
        f"{sides} pixels by antialiased bilinear interpolation whatever their shape, rounded to "
        "whole numbers, divided by 255; by 65535 where grey, or colour in PNG or TIFF, has more "
        "than 8 bits, be it 12 or 16."
    )
    if form is None:
        return photographs
    window = (
        "a DICOM file's own window (the first it has, by its function, or its VOI table; of a "
        "series, or a file with several slices, the middle slice's for all of them); where it has "
        "none, from 0 (or the smallest value, if below) to the volume's 99th percentile"
        if form.window is None
        else f"the range from {form.window[0]:g} to {form.window[1]:g} in these units"
    )
    ranged = (
        "First come the file's slope and intercept (of DICOM each slice's own, or its modality "
        f"table). Then values in 0..1 over {window}, clipped. MONOCHROME1, in which small values "
        "are white, is turned: 1 minus that value, or where there is no window the sign before"
    )
    if form.volumes == "slices":
        channels = (
            "the slice before, the slice and the one after as channels"
            if form.neighbours
            else "the slice three times as channels"
        )
        return (
            f"{photographs} Volumes: of NIfTI the axial slices, seen from the feet, the patient's "
            "front on top; of a DICOM series the slices that it has, in their own plane. "
            f"{ranged}; each slice resized as photographs are, and rounded to 65535ths; "
            f"{channels}. DICOM in colour: RGB over the largest value of its bits, no window."
        )
    cut = (
        f"cut into cubes of {sides} voxels at the file's own resolution, filled up with 0"
        if form.volumes == "patches"
        else f"resized to {sides} voxels, linear along each axis, antialiased"
    )
    return (
        "Volumes: of NIfTI axial slices from the feet up, of a DICOM series its own along their "
        f"normal. {ranged}; {cut}, and rounded to 65535ths; one channel."
    )


def page(chosen: Chosen, card: Card, kind: Format, done: "Exported") -> str:
    """The card as a Markdown page."""
    sections = (
        _title(card),
        _use(card, kind, done),
        _input(chosen, card, kind),
        _training(card),
        _scores(card),
        _limits(chosen, card),
        _check(chosen, kind, done),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(card: Card) -> str:
    classes = ", ".join(card["classes"])
    task = "Segments" if card["task"] == "segmentation" else "Classifies"
    whose = f"personal model of site {card['site']}" if "site" in card else "one model"
    return (
        f"# Model card\n\n{task} medical images: {classes}. Network `{card['model']}`, {whose}, "
        f"trained with the method `{card.get('method', 'unknown')}`.\n\n"
        "**For research. It is not a medical device: no diagnosis or treatment may rest on it.**"
    )


def _use(card: Card, kind: Format, done: "Exported") -> str:
    lines = kind.use.format(file=done.file.name)
    return f"## Use\n\n```python\n{lines}\n```"


def _input(chosen: Chosen, card: Card, kind: Format) -> str:
    dense = ", a pixel" if chosen.dense else ""
    low, high = card.get("input_range", INPUT_RANGE)
    inside = [f"scaling of 0..1 to {low:g}..{high:g}"]
    if card["harmonise"]["kind"] == "amplitude":
        inside.insert(0, f"amplitude normalisation (band {card['harmonise']['band']})")
    classes = map(_escaped, card["classes"])
    rows = "\n".join(f"| {index} | {name} |" for index, name in enumerate(classes))
    return (
        f"## Input and output\n\nInput `images`: float32, "
        f"(N, {', '.join(map(str, card['shape']))}), values 0 to 1; N is any number.\n\n"
        f"{card['preprocessing']}\n\nInside the file: {' and '.join(inside)}.\n\n"
        f"Output: `logits` and `probabilities` (their softmax) of the classes{dense}, along "
        f"axis 1.\n\n| index | class |\n|---|---|\n{rows}"
    )


def _training(card: Card) -> str:
    training = card.get("training")
    if training is None:
        return "## Training\n\nThe run is not at hand: data, sites and scores are not known here."
    of, own = training["data"], training["licence"]
    licence = (
        f"The images are under this licence: {own}." if own else "The images have their own terms."
    )
    held = f" The site {training['holdout']} did not train." if training["holdout"] else ""
    leak = (
        " The split leaks: images of one patient or lesion are in training and test, so that "
        "scores are too good."
        if training["leaks"]
        else ""
    )
    versions = ", ".join(f"{name} {number}" for name, number in training["versions"].items())
    return (
        f"## Training\n\nData `{of}`, split `{training['protocol']}`; sites: "
        f"{', '.join(training['sites'])}.{held}{leak}\n\n"
        f"Method `{card.get('method')}`, batch norm statistics `{card['statistics']}`, "
        f"{training['rounds']} rounds; {_which_round(training)}. With {versions}.\n\n{licence} "
        "Whether weights that were learnt from them may be used as you wish, their owners and your "
        "law decide; Counterpoint itself is under Apache-2.0."
    )


def _which_round(training: Mapping[str, Any]) -> str:
    """Of which round the model is, and why.

    >>> _which_round({"rounds": 9, "chosen_round": 7, "chosen_from": 5, "finetune_epochs": 0})
    'of rounds 5 to 9, validation chose the model of round 7'
    >>> _which_round({"rounds": 9, "chosen_round": 9, "chosen_from": 9, "finetune_epochs": 2})
    'the model is that of the last round, then trained 2 more epochs at its site alone'
    >>> _which_round({"rounds": 9, "chosen_round": 7, "finetune_epochs": 0})
    'the model is that of round 7'
    """
    first, last = training.get("chosen_from"), training["rounds"]
    if first is None:  # a run of an earlier version
        return f"the model is that of round {training['chosen_round']}"
    if first < last:
        return f"of rounds {first} to {last}, validation chose the model of round " + str(
            training["chosen_round"]
        )
    epochs = int(training["finetune_epochs"])
    more = f", then trained {epochs} more epoch{'s' * (epochs > 1)} at its site alone"
    return "the model is that of the last round" + more * (epochs > 0)


def _scores(card: Card) -> str:
    if "test" not in card:
        return ""
    metrics = card["training"]["metrics"]
    head = " | ".join(["site", *(_escaped(heading(metric)) for metric in metrics)])
    rows = []
    for site, scores in card["test"].items():
        cells = [_cell(m, scores[m], card["intervals"][site].get(m)) for m in metrics]
        rows.append(" | ".join([_escaped(site), *cells]))
    lines = [head, "|".join(["---"] * (len(metrics) + 1)), *rows]
    table = "\n".join(f"| {line} |" for line in lines)
    drawn = (
        "patients"
        if card["training"]["patients"]
        else "images. Of which patients they are is not known, at least not of all: images of one "
        "may be in training and test, so that scores may be too good and intervals too narrow"
    )
    return (
        "## Scores\n\nOn test images that were looked at once, with 95 % bootstrap intervals over "
        f"{drawn}.\n\n{table}"
    )


def _escaped(name: str) -> str:
    """A name as a cell of a table in Markdown, in which a bar would end it."""
    return name.replace("|", "\\|")


def _cell(metric: str, value: float | None, interval: list[float | None] | None) -> str:
    text = number(metric, value)
    if value is None or not interval or interval[0] is None:
        return text
    low, high = (number(metric, end) for end in interval)
    return f"{text} ({low} to {high})"


def _limits(chosen: Chosen, card: Card) -> str:
    lines = [
        "Only images like those of its training sites: another scanner, stain, population or "
        "disease may be answered wrongly, and with confidence.",
        "Probabilities are not calibrated.",
    ]
    if "site" in card:
        lines.append(f"A personal model: it was fitted to the images of {card['site']}.")
    if chosen.needs_company:
        lines.append(
            "It normalises images by the statistics of those that are predicted together: answers "
            "depend on them, and one image alone can't be predicted."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _check(chosen: Chosen, kind: Format, done: "Exported") -> str:
    said = [f"{done.random:.1e} on random images"]
    if done.real is not None:
        said.append(f"{done.real:.1e} on {done.images} real one{'s' * (done.images > 1)}")
    text = (
        f"## Check\n\nThis `{kind.name}` file was compared with the model that it was made of: the "
        f"largest difference of a probability was {' and '.join(said)}."
    )
    if done.precision is not None:
        text += (
            f" The run itself computed in {str(chosen.precision).removeprefix('torch.')}, this "
            f"file computes in float32; on the real images that made a difference of up to "
            f"{done.precision:.1e}."
        )
    return text
