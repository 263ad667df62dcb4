"""A run in MLflow: settings as parameters, scores as metrics. No files are sent."""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

# Before MLflow is imported: it says nothing to its makers unless the user has switched that on, and
# a server that is gone is given up after seconds, not after minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import alembic  # noqa: F401  (of the local store; missed here rather than in the middle of a run)
import sqlalchemy  # noqa: F401
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from counterpoint.files import write_text
from counterpoint.report.logs import Point

EXPERIMENT = "counterpoint"
METRICS, PARAMETERS = 1000, 100
"""MLflow takes so many at once."""

One = TypeVar("One")


class MLflow:
    """Writes to the server that ``MLFLOW_TRACKING_URI`` names, else to ``RUN/mlflow/mlflow.db``.

    The experiment is ``MLFLOW_EXPERIMENT_NAME``, else "counterpoint". ``RUN/mlflow/run.json`` says
    which run of MLflow it is; a run that goes on logs there what is missing.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "mlflow"
        self.page = self.folder / "run.json"
        self.run_id = ""
        self.known: set[tuple[str, int]] = set()

    def open(self, settings: Mapping[str, Any], goes_on: bool) -> None:
        """Begin a run of MLflow, or find the one that was begun."""
        self.folder.mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{(self.folder / 'mlflow.db').resolve()}"
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store)
        if goes_on and self._found():
            self.client.update_run(self.run_id, status="RUNNING")
            return
        name = f"{settings['method']}-{settings['data.name']}-{settings['seed']}"
        self.run_id = self.client.create_run(self._experiment(), run_name=name).info.run_id
        write_text(self.page, json.dumps({"run_id": self.run_id}) + "\n")
        parameters = [Param(name, str(value)[:5000]) for name, value in settings.items()]
        for some in pieces(parameters, PARAMETERS):
            self.client.log_batch(self.run_id, params=some)

    def write(self, points: Iterable[Point]) -> None:
        """Log points that are not logged yet."""
        now = int(1000 * time.time())
        made = [Metric(key(p.name, p.site), p.value, now, p.step) for p in points]
        new = [metric for metric in made if (metric.key, metric.step) not in self.known]
        for some in pieces(new, METRICS):
            self.client.log_batch(self.run_id, metrics=some)
        self.known |= {(metric.key, metric.step) for metric in new}

    def close(self, results: Mapping[str, float] | None, status: str) -> None:
        """Log the test scores and say how the run has ended."""
        try:
            self.write(Point("", name, 0, value) for name, value in (results or {}).items())
        finally:
            self.client.set_terminated(self.run_id, status)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if found := self.client.get_experiment_by_name(name):
            return str(found.experiment_id)
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        place = (self.folder / "artifacts").resolve().as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=place))

    def _found(self) -> bool:
        """Whether the run that was begun is there; then note what it has."""
        try:
            self.run_id = json.loads(self.page.read_text(encoding="utf-8"))["run_id"]
            logged = self.client.get_run(self.run_id).data.metrics
        except (OSError, ValueError, KeyError, MlflowException):
            return False  # deleted, or on another server
        for name in logged:
            history = self.client.get_metric_history(self.run_id, name)
            self.known |= {(metric.key, metric.step) for metric in history}
        return True


def key(name: str, site: str) -> str:
    """A metric's key; parts with characters that MLflow has not are told apart by a checksum.

    >>> key("macro_f1/merged", "Graz"), key("auc/merged", "A+B"), key("auc/test/A+B", "")
    ('macro_f1/merged/Graz', 'auc/merged/A_B-ca5b', 'auc/test/A_B-ca5b')
    """
    return "/".join(map(allowed, [*name.split("/"), *([site] if site else [])]))


def allowed(part: str) -> str:
    """A part of a key, in the characters that MLflow has."""
    found = re.sub(r"[^\w.\- :]", "_", part).strip(". ")
    if found != part:
        found += f"-{hashlib.sha256(part.encode()).hexdigest()[:4]}"
    return found[-150:]


def pieces(all: Sequence[One], size: int) -> list[Sequence[One]]:
    """Cut a sequence in pieces.

    >>> pieces("abcde", 2)
    ['ab', 'cd', 'e']
    """
    return [all[start : start + size] for start in range(0, len(all), size)]
