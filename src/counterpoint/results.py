"""What a finished run says: final scores, retrogress, bytes, and the models to load."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import torch

from counterpoint.data.site import Federation
from counterpoint.errors import StateError, nearest
from counterpoint.files import read_tensors, write_tensors
from counterpoint.predictor import Predictor, load_model, model_card
from counterpoint.settings import Settings
from counterpoint.tasks import Classification

METRICS = ["macro_f1", "accuracy", "auc", "loss"]


class Result:
    """A finished run, read from its folder.

    Attributes:
        path: the run's folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of ``results.json``.

        Raises:
            StateError: if the run is not finished.
        """
        file = self.path / "results.json"
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StateError(
                f"{self.path} has no results yet; go on with `counterpoint resume {self.path}`"
            ) from error
        except (OSError, ValueError) as error:
            raise StateError(f"{file} can't be read: {error}") from error
        return dict(values)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every score at every point, as in ``scores.csv``."""
        return read_log(self.path / "scores.csv")

    @property
    def table(self) -> pd.DataFrame:
        """Test scores, a row a site: macro_f1, accuracy, auc (0..1) and loss."""
        return pd.DataFrame.from_dict(self.results["test"], orient="index", columns=METRICS)

    def model(self, site: str | None = None) -> Predictor:
        """Load a site's model, or the global one where the method has one.

        Raises:
            StateError: if there is no such model.
        """
        folder = self.path / "models"
        path = folder / "global.safetensors" if site is None else _personal(folder, site)
        if not path.is_file():
            sites = list(self.results["test"])
            what = "global model" if site is None else f"model of site '{site}'"
            raise StateError(f"{self.path} has no {what}{nearest(site or '', sites)}")
        return load_model(path)[0]


def read_log(path: Path) -> pd.DataFrame:
    """Read one of a run's CSV files; site names stay text."""
    try:
        return pd.read_csv(path, dtype={"site": str, "stage": str}, keep_default_na=True)
    except (OSError, ValueError) as error:
        raise StateError(f"{path} can't be read: {error}") from error


def _personal(folder: Path, site: str) -> Path:
    return folder / "personal" / f"{quote(site, safe=' ')}.safetensors"


def write_models(
    out: Path, settings: Settings, task: Classification, round: int, chosen: Mapping[str, Path]
) -> None:
    """Write every site's model and, if all sites have the same, the global one."""
    method, folder = settings.method, out / "models"
    models = {name: read_tensors(path) for name, path in chosen.items()}

    def save(path: Path, name: str) -> None:
        card = model_card(
            method.schedule.model,
            method.schedule.model_options,
            task.classes,
            method.schedule.image_size,
            method.harmonise,
            method.statistics,
            method=method.name,
            round=round,
            site=name,
        )
        write_tensors(path, models[name], card)

    if not method.pooled:
        for name in models:
            save(_personal(folder, name), name)
    first, *others = models.values()
    if all(torch.equal(first[k], other[k]) for other in others for k in first):
        save(folder / "global.safetensors", next(iter(models)))


def retrogress(scores: pd.DataFrame, metric: str = "macro_f1") -> pd.DataFrame:
    """Validation score just before each communication minus just after it.

    Returns a row for each model, site and round, with columns before, after and retrogress; a
    positive number is a loss by communicating.

    >>> rows = [("epoch", 1, 0.5), ("epoch", 2, 0.75), ("merged", 0, 0.5)]
    >>> scores = pd.DataFrame([{"round": 1, "site": "A", "model": "model", "split": "validation",
    ...                         "moment": m, "epoch": e, "macro_f1": s} for m, e, s in rows])
    >>> retrogress(scores)["retrogress"].tolist()
    [0.25]
    """
    rows = scores[scores["split"] == "validation"]
    keys = ["model", "site", "round"]
    epochs = rows[rows["moment"] == "epoch"].sort_values("epoch")
    before = epochs.groupby(keys, sort=False)[metric].last()
    after = rows[rows["moment"] == "merged"].groupby(keys, sort=False)[metric].last()
    table = pd.DataFrame({"before": before, "after": after}).dropna().reset_index()
    table["retrogress"] = table["before"] - table["after"]
    return table.sort_values(keys).reset_index(drop=True)


def summarise(
    path: Path, settings: Settings, federation: Federation, facts: Mapping[str, object]
) -> dict[str, object]:
    """The content of ``results.json``, from what the run has logged."""
    scores, payloads = read_log(path / "scores.csv"), read_log(path / "payloads.csv")
    test = scores[scores["split"] == "test"].set_index("site")[METRICS]
    drops = retrogress(scores)
    per_site = payloads.groupby(["round", "site", "direction"])["bytes"].sum()
    sites = len(federation.sites)
    rounds = settings.method.schedule.rounds
    return {
        "method": settings.method.name,
        "statistics": settings.method.statistics,
        "data": federation.name,
        "protocol": federation.protocol,
        "test": {site: _plain(row) for site, row in test.iterrows()},
        "mean": _plain(test.mean()),
        "worst_site": str(test["macro_f1"].idxmin()),
        "retrogress": {
            model: {
                "mean": float(rows["retrogress"].mean()),
                "by_round": [float(x) for x in rows.groupby("round")["retrogress"].mean()],
            }
            for model, rows in drops.groupby("model")
        },
        "bytes": {
            f"{direction}_per_round_and_site": (
                float(per_site.xs(direction, level="direction").sum()) / rounds / sites
                if direction in per_site.index.get_level_values("direction")
                else 0.0
            )
            for direction in ("up", "down")
        },
        "rounds": rounds,
        "seed": settings.seed,
        **facts,
    }


def _plain(row: "pd.Series[float]") -> dict[str, float | None]:
    return {str(k): None if pd.isna(v) else float(v) for k, v in row.items()}
