"""The test cases: confusion matrices or scores case by case, and the worst of them."""

import numpy as np
import pandas as pd
from torch import nn

from counterpoint.figures.case_scores import CaseScores, draw_case_scores
from counterpoint.figures.confusion import Confusion, draw_confusion
from counterpoint.layers import batch_norms, mixes_images
from counterpoint.predictor import Together
from counterpoint.report.page.blocks import (
    Block,
    Cell,
    Details,
    Photo,
    Photos,
    Section,
    Table,
    Text,
)
from counterpoint.report.page.images import Images, Source, predict
from counterpoint.report.page.pictures import number_of, pictures
from counterpoint.report.page.runs import Arm, Study
from counterpoint.report.page.svg import Mark
from counterpoint.report.page.thumbnails import outlined, png, worst_plane
from counterpoint.report.page.words import counted, listed, named
from counterpoint.report.words import number, unit_of

WORST = 5
"""Cases of a site that are listed."""
PICTURED = 3
"""Cases of a site that are shown."""
NUMBERS = (
    "Cases are numbered from 0: the hospital's image files in the order of its table, each once, "
    "files that are missing left out"
)


def cases(study: Study, thumbnails: bool) -> Section:
    """What became of the test images."""
    if study.values["task"] == "classification":
        blocks = _classification(study)
    else:
        blocks = _segmentation(study)
    blocks += _worst(study, study.main, thumbnails)
    return Section("cases", "Test cases", blocks)


def _classification(study: Study) -> list[Block]:
    first = study.headline
    rest = [arm for arm in study.arms if arm not in first]
    blocks: list[Block] = [
        Text("Each row is what the images are; the columns say what the model calls them.")
    ]
    blocks += [Details(arm.label, [_confusions(study, arm)], open=True) for arm in first]
    if rest:
        others = [Details(arm.label, [_confusions(study, arm)]) for arm in rest]
        blocks.append(Details(f"The other {counted(len(rest), 'method')}", others))
    return blocks


def _confusions(study: Study, arm: Arm) -> Block:
    classes = tuple(study.classes)
    panels = {site: _confusion(arm, site, classes) for site in study.sites}

    def cells(table: Confusion) -> list[tuple[str, str, int, float]]:
        return [
            (truth, found, int(table.counts[i, j]), float(table.shares[i, j]))
            for i, truth in enumerate(classes)
            for j, found in enumerate(classes)
        ]

    def words(site: str, table: Confusion) -> str:
        right = [
            f"{name} {100 * table.shares[i, i]:.0f} % of {table.counts[i].sum()} found"
            for i, name in enumerate(classes)
        ]
        return f"{arm.label} at {site}: {'; '.join(right)}"

    def marks(site: str, table: Confusion) -> list[Mark]:
        return [
            Mark("", [f"{count} images of {truth} called {found} ({100 * share:.0f} %)"])
            for truth, found, count, share in cells(table)
        ]

    def as_table(site: str, table: Confusion) -> Table:
        rows: list[list[str | Cell]] = [
            [
                truth,
                *(
                    Cell(f"{100 * share:.0f} %", str(count), share=share)
                    for share, count in zip(table.shares[i], table.counts[i], strict=True)
                ),
            ]
            for i, truth in enumerate(classes)
        ]
        head = ["The image is", *(f"called {name}" for name in classes)]
        return Table(f"{arm.label} at {site}: shares of each class, and counts", head, rows)

    side = 0.7 + 0.6 * len(classes)
    key = f"All {counted(len(arm.runs), 'seed')} together." if len(arm.runs) > 1 else ""
    return pictures(
        f"confusion-{arm.key}",
        panels,
        draw_confusion,
        marks,
        words,
        as_table,
        key=key,
        size=(side + 1.1, side + 0.2),
        small=True,
    )


def _confusion(arm: Arm, site: str, classes: tuple[str, ...]) -> Confusion:
    tables = [
        pd.crosstab(run.cases_of(site)["class"], run.cases_of(site)["predicted"])
        .reindex(index=classes, columns=classes, fill_value=0)
        .to_numpy(dtype=np.int64)
        for run in arm.runs
    ]
    return Confusion(classes, np.sum(tables, axis=0))


def _segmentation(study: Study) -> list[Block]:
    metric = study.score
    panels = {
        site: [
            CaseScores(arm.label, number_of(arm), _values(arm, site, metric)) for arm in study.arms
        ]
        for site in study.sites
    }

    def marks(site: str, rows: list[CaseScores]) -> list[Mark]:
        return [Mark("", _case_tips(arm, site, metric)) for arm in study.arms]

    def words(site: str, rows: list[CaseScores]) -> str:
        said = [
            f"{row.label}: {len(row.values)} cases from {min(row.values):.0f} to "
            f"{max(row.values):.0f} %"
            for row in rows
            if row.values
        ]
        return f"{named(metric)} of every test case of {site}. {'; '.join(said)}"

    def table(site: str, rows: list[CaseScores]) -> Table:
        cells: list[list[str | Cell]] = []
        for row in rows:
            values = row.values or [float("nan")]
            quarters = np.percentile(values, [0, 25, 50, 75, 100])
            cells.append([row.label, str(len(row.values)), *(f"{q:.1f}" for q in quarters)])
        head = ["Method", "Cases", "Lowest", "Lower quarter", "Middle", "Upper quarter", "Highest"]
        return Table(f"{site}: {named(metric)} in % of the test cases", head, cells)

    figure = pictures(
        "cases",
        panels,
        lambda axes, rows: draw_case_scores(axes, rows, f"{named(metric)} ({unit_of(metric)})"),
        marks,
        words,
        table,
        key="A mark is a test case (of all seeds); the upright bar is the mean.",
        size=(5.2, 1.1 + 0.5 * len(study.arms)),
    )
    return [figure]


def _rows(arm: Arm, site: str, metric: str) -> list[tuple[int, int, float]]:
    """Seed, case and score (in percent) of every test case that has one."""
    return [
        (run.seed, int(case), 100 * float(value))
        for run in arm.runs
        for case, value in zip(run.cases_of(site)["case"], run.cases_of(site)[metric], strict=True)
        if not np.isnan(value)
    ]


def _values(arm: Arm, site: str, metric: str) -> list[float]:
    return [value for _, _, value in _rows(arm, site, metric)]


def _case_tips(arm: Arm, site: str, metric: str) -> list[str]:
    several = len(arm.runs) > 1
    return [
        f"{arm.label}, {site}, case {case}{f' (seed {seed})' if several else ''}: {value:.1f} %"
        for seed, case, value in _rows(arm, site, metric)
    ]


def _worst(study: Study, arm: Arm, thumbnails: bool) -> list[Block]:
    tables = {site: worst_cases(arm.first.cases_of(site), study.score) for site in study.sites}
    of = f"{arm.label}, seed {arm.first.seed}"
    blocks: list[Block] = [Text(f"The worst cases of {of}", "heading")]
    if study.values["task"] == "classification":
        head = ["Hospital", "Case", "Class", "Called", "With probability"]
        what = "the errors that the model was surest of"
    else:
        head = ["Hospital", "Case", named(study.score), "Sensitivity", "Specificity"]
        what = f"the lowest {named(study.score)}"
    rows: list[list[str | Cell]] = []
    for site, table in tables.items():
        rows += [[site, *_worst_cells(row, study.score)] for row in table.to_dict("records")]
    if rows:
        caption = f"{of}: {what}. {NUMBERS}"
        blocks.append(Table(caption, head, rows))
    else:
        blocks.append(Text("No test image is called by a wrong class."))
    if not thumbnails:
        blocks.append(
            Text(
                "No image is shown: images are patient data. `--thumbnails` puts small pictures "
                "of these cases into the page.",
                "small",
            )
        )
        return blocks
    images = Source(arm.first).opened
    if isinstance(images, str):
        return [*blocks, Text(f"The pictures are left out: {images}.", "small")]
    if not all(images.numbered_as(arm.first.cases_of(site), site) for site in study.sites):
        odd = "an earlier version numbered the cases of this run in another way"
        return [*blocks, Text(f"The pictures are left out: {odd}.", "small")]
    blocks.append(Text(_about_pictures(study, arm)))
    for site, table in tables.items():
        shown = [
            _photo(study, arm, images, site, row) for row in table.head(PICTURED).to_dict("records")
        ]
        blocks += [Text(site, "heading"), Photos(shown)] if shown else []
    return blocks


def _about_pictures(study: Study, arm: Arm) -> str:
    """What the outlines are, and where there are none of the model's."""
    if study.values["task"] == "classification":
        return "Of a case with several slices, the one in the middle is shown."
    text = (
        "Outlines: white, the area that people have marked; orange, the model's. Of a case with "
        "several slices, the one with most wrong pixels is shown."
    )
    reasons = {site: why for site in study.sites if (why := _unlike(study, arm, site))}
    for why in dict.fromkeys(reasons.values()):
        sites = listed([site for site in reasons if reasons[site] == why])
        text += f" {sites}: no orange, as {why}; the slice with the largest white area is shown."
    return text


def _unlike(study: Study, arm: Arm, site: str) -> str:
    """Why a case by itself is predicted otherwise than for its score; empty where it is not."""
    model = _model(study, arm, site)
    if mixes_images(model):
        return "the score is of an answer that depends on the other images of a batch"
    calibrated = arm.first.values["statistics"] == "recalibrated" and batch_norms(model)
    if calibrated and site == study.holdout:
        return "the score is of a model that was calibrated on this hospital's images and not kept"
    return ""


def worst_cases(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The worst of a site's test cases, the worst first.

    >>> table = pd.DataFrame({"case": [1, 2, 3], "class": ["a", "a", "b"],
    ...                       "predicted": ["a", "b", "a"], "p_a": [.9, .3, .8],
    ...                       "p_b": [.1, .7, .2]})
    >>> worst_cases(table, "macro_f1")["case"].tolist()
    [3, 2]
    """
    if "predicted" not in table:
        return table.dropna(subset=[metric]).nsmallest(WORST, metric)
    wrong = table[table["class"] != table["predicted"]]
    sure = [float(row[f"p_{row['predicted']}"]) for row in wrong.to_dict("records")]
    return wrong.assign(sure=sure).nlargest(WORST, "sure")


def _worst_cells(row: dict[object, object], metric: str) -> list[str | Cell]:
    if "predicted" in row:
        sure = f"{100 * float(str(row['sure'])):.0f} %"
        return [str(row["case"]), str(row["class"]), str(row["predicted"]), sure]
    scores = [
        number(name, float(str(row[name]))) for name in (metric, "sensitivity", "specificity")
    ]
    return [str(row["case"]), *scores]


def _photo(study: Study, arm: Arm, images: Images, site: str, row: dict[object, object]) -> Photo:
    """A thumbnail of a case, with outlines of truth and prediction where there are masks."""
    case = int(str(row["case"]))
    pixels, target = images.case(site, case)
    middle = slice(1, 2) if arm.first.settings.get("data.neighbours") else slice(None)
    if study.values["task"] == "classification":
        words = f"{row['class']} called {row['predicted']}"
        one = pixels[len(pixels) // 2, middle]
        plane = one if one.ndim == 3 else one[:, one.shape[1] // 2]
        return Photo(png(plane), f"Test image {case} of {site}: {words}", f"Case {case}: {words}")
    alone = not _unlike(study, arm, site)
    # where nothing is said to be found, the worst plane is that with the largest marked area
    found = predict(_model(study, arm, site), pixels) if alone else np.zeros_like(target)
    image, truth, answer = worst_plane(pixels, target, found)
    score = f"{named(study.score)} {number(study.score, float(str(row[study.score])))} %"
    areas = "true and the predicted area" if alone else "true area"
    words = f"Test case {case} of {site}, {score}: outlines of the {areas}"
    return Photo(outlined(image[middle], truth, answer), words, f"Case {case}: {score}")


def _model(study: Study, arm: Arm, site: str) -> nn.Module:
    """The model that a site's scores are of: at one that did not train, all models together."""
    result = arm.first.result
    if site != study.holdout or result.results["one_global_model"]:
        return result.model(site)
    return Together([result.model(one) for one in study.training_sites]).eval()
