"""The landscapes of runs along common axes, as one table."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pandas as pd

from counterpoint.errors import SettingsError, nearest
from counterpoint.landscape.directions import Direction, Plane, filter_normalised, plane_through
from counterpoint.landscape.scene import Scene, Weights, scenes, weights_of
from counterpoint.landscape.view import View
from counterpoint.landscape.walk import losses_around
from counterpoint.predictor import Predictor
from counterpoint.results import Result
from counterpoint.runs import Run
from counterpoint.seeds import generator

GLOBAL = "global optimum"


def numbers(
    runs: Sequence[Run],
    shape: str = "surface",
    sites: Sequence[str] | None = None,
    split: str = "validation",
    statistics: str = "recalibrated",
    images: int = 128,
    points: int = 0,
    reach: float = 0.0,
    directions: int = 3,
    direction_seed: int = 1,
    optima: Path | None = None,
    root: Path | None = None,
    note: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> pd.DataFrame:
    """Loss of every run's models at points around them, on each site's images.

    Args:
        runs: of each name, the run with the lowest seed that all have is taken.
        shape: "surface" (two random directions) or "line" (one at a time) around the model that a
            site uses, filter-normalised; or "plane" through the global model and the optima of the
            first two sites, onto which the other sites' optima are projected.
        sites: only these; left out, all that trained.
        split: on which images, "validation" or "train".
        statistics: of batch norm at each point: "recalibrated" estimates them there, on as many
            training images of the site; "saved" are the model's own. Models without running ones
            normalise each batch by itself, in batches as large as in training.
        images: how many of each site.
        points: along an axis; 0: 41 on a line, else 15.
        reach: how far a line or surface goes to each side, in lengths of the filters (0: 1), and a
            plane beyond the models, in the largest distance of one from the global model (0: 0.5).
        directions: how many lines.
        direction_seed: draws them; all runs get the same.
        optima: a run without aggregation, whose models are the sites' optima; left out, each
            site trains on from the global model for one round.
        root: folder of the data, where it is not that of the settings.
        note: is told which seed is taken.
        progress: is told what is done, how much of it, and of how much.

    Returns:
        A row a point: name, site, shape, direction, x, y, loss; on a plane, rows with a ``mark``
        say which model is there and its ``distance`` from the plane; then split, images and
        statistics as used.

    Raises:
        CounterpointError: if models or data are not there, or do not fit together.
    """
    view = View(shape, split, statistics, images, points, reach, directions, direction_seed)
    stage = list(scenes(one_seed(runs, note), root, progress))
    shown = _shown(stage[0], sites)
    planes = common_planes(stage, shown, view, optima) if shape == "plane" else {}
    total = len(stage) * len(shown) * view.walks * view.points ** (1 if shape == "line" else 2)
    counted = count(1)

    def step() -> None:
        progress("walking around", min(next(counted), total), total)

    tables = []
    for scene in stage:
        for site in shown:
            model = scene.model(site)
            loss, source = scene.loss(model, site, view)
            walks = _across(model, *planes[scene]) if planes else _around(model, view)
            for ways, table in walks:
                positions = table[["x", "y"][: len(ways)]].to_numpy()
                losses = losses_around(model.network, ways, positions, loss, step)
                facts = table.assign(name=scene.run.name, site=site, loss=losses)
                seen = min(images, len(scene.sites[site].part(split)))
                tables.append(facts.assign(images=seen, statistics=source))
    columns = ["name", "site", "shape", "direction", "x", "y", "loss", "mark", "distance"]
    table = pd.concat(tables).assign(shape=shape, split=split)
    return table.reindex(columns=[*columns, "split", "images", "statistics"]).reset_index(drop=True)


def one_seed(runs: Sequence[Run], note: Callable[[str], None]) -> list[Run]:
    """A run a name, all with the lowest seed that all have; they must share the data.

    Raises:
        SettingsError: if there is no such seed, or they were trained on different data.
    """
    seeds: dict[str, dict[int, Run]] = {}
    for run in runs:
        seeds.setdefault(run.name, {})[run.seed] = run
    common = set.intersection(*(set(of) for of in seeds.values()))
    if not common:
        raise SettingsError(
            "a landscape compares runs on the same images, and these have no seed in common: "
            + "; ".join(f"{name} has {', '.join(map(str, of))}" for name, of in seeds.items())
        )
    if len(runs) > len(seeds):
        note(f"the landscape of seed {min(common)} is drawn; another by --where seed=SEED")
    chosen = [of[min(common)] for of in seeds.values()]
    if len({run.result.results["data_fingerprint"] for run in chosen}) > 1:
        raise SettingsError(
            "a landscape compares runs on the same images, and these were trained on different "
            "images or splits; give runs with the same settings of the data"
        )
    return chosen


def _shown(scene: Scene, sites: Sequence[str] | None) -> list[str]:
    for site in sites or []:
        if site not in scene.sites:
            known = list(scene.sites)
            raise SettingsError(
                f"unknown site '{site}'{nearest(site, known)} (sites: {', '.join(known)})"
            )
    return list(sites or scene.sites)


Walk = tuple[Sequence[Direction], pd.DataFrame]


def _across(model: Predictor, plane: Plane, positions: pd.DataFrame) -> list[Walk]:
    """A plane's directions and positions; the model is moved to where the plane begins."""
    model.network.load_state_dict(dict(plane.origin), strict=False)
    return [([plane.across, plane.up], positions.assign(direction=1))]


def _around(model: Predictor, view: View) -> list[Walk]:
    """Directions around a model, and the positions along them."""
    ends = (-view.reach, view.reach)
    needed = view.directions if view.shape == "line" else 2
    drawn = [
        filter_normalised(model.network, generator(view.direction_seed, "direction", number))
        for number in range(1, needed + 1)
    ]
    if view.shape == "line":
        line = pd.DataFrame({"x": view.ticks})
        return [([way], line.assign(direction=n)) for n, way in enumerate(drawn, start=1)]
    return [(drawn, view.grid(ends, ends).assign(direction=1))]


def common_planes(
    stage: Sequence[Scene], shown: Sequence[str], view: View, optima: Path | None
) -> dict[Scene, tuple[Plane, pd.DataFrame]]:
    """For each scene its plane, and the positions to walk: a grid that all share, and the models.

    Raises:
        SettingsError: if there are not two sites, no global model, or optima of other networks.
    """
    if len(shown) < 2:
        raise SettingsError("a plane needs two sites for its directions; name another by --sites")
    found: dict[Scene, tuple[Plane, pd.DataFrame]] = {}
    for scene in stage:
        of_sites = {site: _optimum(scene, site, optima) for site in shown}
        first, second = (of_sites[site] for site in shown[:2])
        plane = plane_through(scene.weights, first, second)
        places = {GLOBAL: (0.0, 0.0, 0.0)} | {s: plane.place(w) for s, w in of_sites.items()}
        marks = pd.DataFrame.from_dict(
            places, orient="index", columns=["x", "y", "distance"]
        ).round(9)
        found[scene] = plane, marks.rename_axis("mark").reset_index()
    every = pd.concat([marks for _, marks in found.values()])
    margin = view.reach * float((every["x"] ** 2 + every["y"] ** 2).max() ** 0.5)
    ends = [(every[a].min() - margin, every[a].max() + margin) for a in ("x", "y")]
    grid = view.grid(*ends)
    return {scene: (plane, pd.concat([grid, marks])) for scene, (plane, marks) in found.items()}


def _optimum(scene: Scene, site: str, optima: Path | None) -> Weights:
    """A site's optimum: that of a run of its own, or where it would take the global model."""
    if optima is None:
        return scene.trained_on(site)
    run = Result(optima)
    if run.results["data_fingerprint"] != scene.run.result.results["data_fingerprint"]:
        raise SettingsError(
            f"{optima} was trained on other images or another split than {scene.run.result.path}; "
            "give a run with the same settings of the data, and the same seed"
        )
    weights = weights_of(run.model(site).to(scene.device))
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in scene.weights.items()}:
        raise SettingsError(
            f"the models in {optima} are not of the network of {scene.run.result.path}; the sites' "
            "optima must be of the same one"
        )
    return weights
