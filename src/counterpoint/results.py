"""What a finished run says: final scores, retrogress, bytes, and the models to load."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

import pandas as pd
import torch

from counterpoint.data.own import patients_known
from counterpoint.data.site import Form
from counterpoint.encryption import account_of_encryption
from counterpoint.errors import SettingsError, StateError, nearest
from counterpoint.files import at_home, is_whole, write_tensors
from counterpoint.folder import going_on
from counterpoint.kept import Kept
from counterpoint.payload import Payload
from counterpoint.predictor import Predictor, load_model, model_card
from counterpoint.privacy import account
from counterpoint.report.words import typed
from counterpoint.settings import Settings
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_is_wrong
from counterpoint.tasks import Task

TEXTS = ("site", "model", "moment", "stage", "split", "direction", "name", "shape")
"""Columns of the logs that hold texts; all others are numbers."""

ESSENTIAL = ("method", "data", "task", "seed", "rounds", "score", "metrics", "test", "mean")
"""What ``results.json`` has in every run."""


class Result:
    """A finished run, read from its folder.

    Attributes:
        path: the run's folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = at_home(Path(path))

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of ``results.json``.

        Raises:
            StateError: if the run is not finished, or the file is damaged.
        """
        file = self.path / "results.json"
        try:
            values = dict(json.loads(file.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self.path.exists():
                raise StateError(
                    f"{self.path} is not the folder of a run: there is no such folder"
                ) from error
            if not (self.path / "settings.yaml").is_file():
                raise StateError(
                    f"{self.path} is not the folder of a run (of a folder with several runs, "
                    "`counterpoint report` makes a page)"
                ) from error
            raise StateError(f"{self.path} has no results yet; {going_on(self.path)}") from error
        except OSError as error:
            raise StateError(f"{file} can't be read: {error.strerror or error}") from error
        except (ValueError, TypeError) as error:
            raise StateError(f"{file} can't be read: {error}; {self._anew}") from error
        if missing := [name for name in ESSENTIAL if name not in values]:
            raise StateError(f"{file} is damaged: it lacks {', '.join(missing)}; {self._anew}")
        return values

    @property
    def _anew(self) -> str:
        return f"remove it, and `counterpoint resume {typed(self.path)}` makes it anew"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of ``settings.yaml``.

        Raises:
            StateError: if it can't be read.
        """
        file = self.path / "settings.yaml"
        try:
            return dict(read_yaml(file))
        except (*UNREADABLE, ValueError, TypeError) as error:
            raise StateError(f"{file} can't be read: {what_is_wrong(error)}") from error

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every score at every point, as in ``scores.csv``."""
        return read_log(self.path / "scores.csv")

    @property
    def table(self) -> pd.DataFrame:
        """Test scores, a row a site: macro_f1, accuracy, auc, or dice, iou, ..., and loss."""
        columns = [*self.results["metrics"], "loss"]
        return pd.DataFrame.from_dict(self.results["test"], orient="index", columns=columns)

    @property
    def predicts(self) -> str:
        """Name of the model that sites predict with, in ``scores.csv``."""
        models = list(dict.fromkeys(self.scores["model"]))
        return next((name for name in ("personal", "model") if name in models), models[0])

    @property
    def validation(self) -> pd.DataFrame:
        """Validation scores of the chosen models, a row a site, with the columns of `table`."""
        epochs = self.settings["schedule"]["finetune_epochs"]
        rows = self.scores[
            (self.scores["split"] == "validation")
            & (self.scores["round"] == self.results["chosen_round"])
            & (self.scores["model"] == self.predicts)
            & (self.scores["moment"] == ("finetuned" if epochs else "merged"))
            & (self.scores["epoch"] == epochs)
        ]
        columns = [*self.results["metrics"], "loss"]
        table: pd.DataFrame = rows.set_index("site").reindex(columns=columns)
        return table.rename_axis(None)

    @property
    def patients_known(self) -> bool:
        """Whether it is known of every test image whose it is, so that patients can be drawn."""
        return patients_known(self.results["data_notes"]) and "group" in self.cases

    @property
    def cases(self) -> pd.DataFrame:
        """A row a test image (or volume): what was predicted, or how well."""
        return read_log(self.path / "test_cases.csv")

    def model(self, site: str | None = None) -> Predictor:
        """Load the model that a site uses, or the global one where the method has one.

        Raises:
            SettingsError: if there is no such model.
            StateError: if there is none at all, or it can't be read.
        """
        return load_model(self.model_file(site))[0]

    def model_file(self, site: str | None = None) -> Path:
        """File of the model that a site uses, or of the global one; raises as :meth:`model`."""
        folder = self.path / "models"
        common = folder / "global.safetensors"
        path = common if site is None else _personal(folder, site)
        if path.is_file():
            return path
        if site is not None and common.is_file() and site in self.results["test"]:
            return common
        there = sorted(p.stem for p in folder.rglob("*.safetensors"))
        finished, cases = (self.path / name for name in ("results.json", "test_cases.csv"))
        if not there and finished.exists() and not cases.exists():
            raise StateError(
                f"{self.path} is of a run across sites: models and test cases stayed at the sites, "
                "each in its own folder of the run"
            )
        if not there:
            raise StateError(
                f"{self.path} has no models yet; is it a run, and is it finished? "
                f"`counterpoint resume {typed(self.path)}` goes on with one"
            )
        personal = [unquote(name) for name in there if name != "global"]
        if site is None:
            raise SettingsError(
                f"{self.path} has no global model; it has {', '.join(personal)}: each site has its "
                "own, choose one with --site"
            )
        if common.is_file():
            personal = list(self.results["test"])
        has = "one global model, of" if common.is_file() else "those of"
        raise SettingsError(
            f"{self.path} has no model of site '{site}'{nearest(site, personal)}; it has "
            f"{has} {', '.join(personal)}"
        )


def runs_in(folder: str | Path) -> list[Result]:
    """The finished runs of a folder: itself, or those in its subfolders, in order of their names.

    Raises:
        StateError: if there is none.
    """
    folder = Path(folder)
    files = [folder / "results.json", *sorted(folder.glob("*/results.json"))]
    runs = [Result(file.parent) for file in files if file.is_file()]
    if not runs:
        begun = [folder / "settings.yaml", *sorted(folder.glob("*/settings.yaml"))]
        stopped = [file.parent for file in begun if file.is_file()]
        hint = f"; {going_on(stopped[0])}" if stopped else ""
        raise StateError(f"{folder} is no finished run, and holds none{hint}")
    return runs


def read_log(path: Path) -> pd.DataFrame:
    """Read one of a run's CSV files; site names stay as they are.

    Raises:
        StateError: if it is not there, or is none.
    """
    try:
        texts = dict.fromkeys((*TEXTS, "class", "predicted"), str)
        path = path.absolute()  # pandas would take a ~ at its beginning for a home
        columns = pd.read_csv(path, nrows=0).columns
        if "site" not in columns:
            raise ValueError("it has no column 'site'")
        # only in columns of numbers does an empty cell mean NaN: a site may well be called NA
        return pd.read_csv(
            path,
            dtype=texts,
            keep_default_na=False,
            na_values={n: ["", "nan"] for n in columns if n not in texts},
        )
    except (OSError, ValueError) as error:
        raise StateError(f"{path} can't be read: {error}") from error


def _personal(folder: Path, site: str) -> Path:
    """File of a site's model; a long name is cut and told apart by a checksum."""
    name = quote(site, safe=" ")
    if len(name) > 100:
        name = f"{name[:80]}-{hashlib.sha256(site.encode()).hexdigest()[:12]}"
    return folder / "personal" / f"{name}.safetensors"


def all_equal(models: Sequence[Payload]) -> bool:
    """Tell whether models are the same in all floating-point tensors.

    How many batches a site has counted is its own matter.
    """
    first = models[0]
    return all(
        torch.equal(tensor, model[name])
        for model in models[1:]
        for name, tensor in first.items()
        if tensor.is_floating_point()
    )


def write_models(
    out: Path,
    settings: Settings,
    task: Task,
    shape: tuple[int, ...],
    form: Form,
    round: int,
    chosen: Mapping[str, Kept],
    state: Path,
) -> bool:
    """Write the global model if all sites have the same, else every site's; tell which it was.

    ``chosen`` are the sites' models, in the folder ``state``.
    """
    distinct = {kept.sha256: kept for kept in chosen.values()}.values()
    for kept in distinct:  # what is handed on is looked at once more, on the disk
        if not is_whole(state / kept.file, kept.sha256):
            raise StateError(f"{state / kept.file} is damaged or missing")
    models = (kept.read(state) for kept in distinct)  # not all of them in memory
    first = next(models)
    if all(all_equal([first, model]) for model in models):
        write_model(out, settings, task, shape, form, round, first)
        return True
    for site, kept in chosen.items():
        write_model(out, settings, task, shape, form, round, kept.read(state), site)
    return False


def write_model(
    out: Path,
    settings: Settings,
    task: Task,
    shape: tuple[int, ...],
    form: Form,
    round: int,
    model: Payload,
    site: str | None = None,
) -> Path:
    """Write the model of a site, or the global one, with its card; returns the file."""
    folder = out / "models"
    path = folder / "global.safetensors" if site is None else _personal(folder, site)
    facts = {} if site is None else {"site": site}
    method = settings.method
    card = model_card(
        method.schedule.model,
        method.schedule.model_options,
        task.kind,
        task.classes,
        shape,
        method.harmonise,
        method.statistics,
        form=asdict(form),
        precision=method.schedule.precision,
        batch_size=method.schedule.at_once(method.schedule.batch_size),
        seed=settings.seed,
        method=method.name,
        round=round,
        **facts,
    )
    write_tensors(path, model, card)
    return path


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
    merged = rows[rows["moment"] == "merged"]
    before, after = (
        some.groupby(keys, sort=False)[metric].last(skipna=False) for some in (epochs, merged)
    )
    table = pd.DataFrame({"before": before, "after": after}).dropna().reset_index()
    table["retrogress"] = table["before"] - table["after"]
    return table.sort_values(keys).reset_index(drop=True)


def shown_metrics(results: Mapping[str, Any]) -> list[str]:
    """The scores that a run's table has room for: of a classification not those of each class.

    And no millimetres, where no site knows them.
    """
    names = results["metrics"]
    if results["task"] == "classification":
        return [name for name in names if name in ("macro_f1", "accuracy", "auc")]
    known = any(row.get("hd95_mm") is not None for row in results["test"].values())
    return [name for name in names if known or name != "hd95_mm"]


def summarise(
    path: Path,
    settings: Settings,
    asked: Mapping[str, Sequence[int]],
    facts: Mapping[str, object],
) -> dict[str, object]:
    """The content of ``results.json``, from what the run has logged.

    ``asked`` are the rounds that each site was asked to train in.
    """
    scores, payloads = read_log(path / "scores.csv"), read_log(path / "payloads.csv")
    score, metrics = str(facts["score"]), [*cast("list[str]", facts["metrics"]), "loss"]
    test = scores[scores["split"] == "test"].set_index("site").reindex(columns=metrics)
    own = test.drop(index=[facts["holdout"]] if facts["holdout"] else [])
    drops = retrogress(scores, score)
    per_site = payloads.groupby(["round", "site", "direction"])["bytes"].sum()
    rounds = settings.method.schedule.rounds
    images = cast("dict[str, int]", facts["training_images"])
    private = account(settings.method, images, asked, payloads)
    return {
        "method": settings.method.name,
        "statistics": settings.method.statistics,
        "data": facts["data"],
        "protocol": facts["protocol"],
        "test": {site: _plain(row) for site, row in test.iterrows()},
        "mean": _plain(own.mean()),
        "worst_site": str(own[score].idxmin()) if own[score].notna().any() else str(own.index[0]),
        "retrogress": {
            model: {
                "mean": float(rows["retrogress"].mean()),
                "by_round": [float(x) for x in rows.groupby("round")["retrogress"].mean()],
            }
            for model, rows in drops.groupby("model")
        },
        "bytes": {
            f"{direction}_per_round_and_site": (
                float(per_site.xs(direction, level="direction").sum()) / rounds / len(asked)
                if direction in per_site.index.get_level_values("direction")
                else 0.0
            )
            for direction in ("up", "down")
        },
        "rounds": rounds,
        "seed": settings.seed,
        **({"privacy": private} if private else {}),
        **({"encryption": account_of_encryption()} if settings.encrypt else {}),
        **facts,
    }


def _plain(row: "pd.Series[float]") -> dict[str, float | None]:
    return {str(k): None if pd.isna(v) else float(v) for k, v in row.items()}
