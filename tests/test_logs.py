"""TensorBoard and MLflow get what scores.csv has, once, and a run is the same without them."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from counterpoint import Result, resume, run
from counterpoint.errors import SettingsError
from counterpoint.report import logs
from counterpoint.report.logs import logged
from counterpoint.report.mlflow import MLflow, key
from tests.running import SHORT, TINY, Stopped, content, stop_in

SETTINGS = SHORT | TINY | {"local_epochs": 2}
pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module", autouse=True)
def _one_store(tmp_path_factory: pytest.TempPathFactory):
    """Making MLflow's database takes seconds: one for all tests but those that take it away."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}")
        yield


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch):
    """Note every attempt to reach another computer."""
    tried: list[object] = []
    connect = socket.socket.connect

    def noted(self, address):
        if self.family != socket.AF_UNIX:
            tried.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    yield
    assert tried == []


def short(value: float) -> float:
    """A number as TensorBoard's files have it, in single precision."""
    return float(np.float32(value))


def in_mlflow(folder: Path) -> Counter[tuple[str, int, float]]:
    """How often each point is in MLflow."""
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    run_id = json.loads((folder / "mlflow" / "run.json").read_text())["run_id"]
    keys = client.get_run(run_id).data.metrics
    points = [one for name in keys for one in client.get_metric_history(run_id, name)]
    return Counter((one.key, one.step, short(one.value)) for one in points)


def in_tensorboard(folder: Path) -> Counter[tuple[str, int, float]]:
    """How often each point is in TensorBoard's files, named as in MLflow."""
    found: Counter[tuple[str, int, float]] = Counter()
    for site in sorted((folder / "tensorboard").iterdir()):
        files = EventAccumulator(str(site), size_guidance={"scalars": 0}).Reload()
        for tag in files.Tags()["scalars"]:
            name = tag if "/test/" in tag or "/" not in tag else key(tag, site.name)
            named = name.removesuffix("/mean") if tag.startswith(("retro", "bytes")) else name
            found.update((named, one.step, short(one.value)) for one in files.Scalars(tag))
    return found


def in_table(folder: Path) -> set[tuple[str, int, float]]:
    """What scores.csv has of validation, counted without the code under test."""
    scores = Result(folder).scores
    scores = scores[scores["split"] == "validation"]
    scores["at"] = scores["round"] * 2 + scores["epoch"] - 2 * (scores["moment"] == "epoch")
    scores["of"] = scores["moment"].map({"epoch": "trained"}).fillna("merged")
    expected = set()
    numbers = ["macro_f1", "accuracy", "auc", "balanced_accuracy", "loss", "train_loss"]
    for (of, at), rows in scores.groupby(["of", "at"]):
        means = pd.concat(
            [rows.set_index("site")[numbers], rows[numbers].mean().to_frame("mean").T]
        )
        for site, row in means.iterrows():
            values = {n: v for n, v in row.items() if v == v}
            expected |= {(f"{n}/{of}/{site}", at, short(v)) for n, v in values.items()}
    return expected


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A run without any log."""
    folder = tmp_path / "plain"
    run("fedavg", "phantom", out=folder, settings=SETTINGS)
    return folder


def same_but_for_logs(folder: Path, other: Path) -> bool:
    mine = content(folder)
    mine = {n: c for n, c in mine.items() if not n.startswith(("tensorboard/", "mlflow/"))}
    return mine == content(other)


@pytest.mark.usefixtures("no_network")
def test_logs_have_what_scores_csv_has_and_change_nothing(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with logged(folder, "tensorboard", "mlflow") as report:
        run("fedavg", "phantom", out=folder, settings=SETTINGS, report=report)
    assert same_but_for_logs(folder, plain)
    found, shown = in_mlflow(folder), in_tensorboard(folder)
    assert set(found.values()) == set(shown.values()) == {1}
    curves = {p for p in found if p[0].split("/")[1:2] in (["merged"], ["trained"])}
    assert curves == in_table(folder)
    results = Result(folder).results
    for site, score in [
        *((s, of["macro_f1"]) for s, of in results["test"].items()),
        ("mean", results["mean"]["macro_f1"]),
    ]:
        assert found[(f"macro_f1/test/{site}", 0, short(score))] == 1
    assert found.keys() == shown.keys()


def test_a_stopped_run_goes_on_with_its_logs_and_no_point_is_there_twice(
    plain: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with (
        pytest.raises(Stopped),
        logged(folder, "tensorboard", "mlflow", report=stop_in(3)) as report,
    ):
        run("fedavg", "phantom", out=folder, settings=SETTINGS, report=report)
    begun = in_mlflow(folder)
    assert begun
    with logged(folder) as report:  # not named again: those that were begun go on
        resume(folder, report=report)
    assert same_but_for_logs(folder, plain)
    found, shown = in_mlflow(folder), in_tensorboard(folder)
    assert set(found.values()) == set(shown.values()) == {1}
    assert begun.keys() < found.keys()
    assert in_table(folder) < found.keys()
    assert in_table(folder) < shown.keys()


def test_a_log_that_fails_is_given_up_with_one_warning_and_can_be_made_later(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = tmp_path / "run", []
    write = MLflow.write

    def failing(self, points):
        if self.known:
            raise OSError("the server has gone")
        write(self, points)

    with monkeypatch.context() as patch:
        patch.setattr(MLflow, "write", failing)
        with logged(folder, "mlflow", report=told.append) as report:
            run("fedavg", "phantom", out=folder, settings=SETTINGS, report=report)
    warnings = [event["warning"] for event in told if "warning" in event]
    assert len(warnings) == 1
    assert "mlflow has failed (the server has gone)" in warnings[0]
    assert f"resume {folder} --log mlflow" in warnings[0]
    assert same_but_for_logs(folder, plain)
    assert not in_table(folder) < in_mlflow(folder).keys()
    with logged(folder, "mlflow") as report:
        resume(folder, report=report)
    found = in_mlflow(folder)
    assert in_table(folder) < found.keys()
    assert set(found.values()) == {1}


def test_no_path_and_no_note_is_logged(tmp_path: Path) -> None:
    """An own table lies in some folder, and notes may name patients."""
    kept = logs.loggable(
        {
            "method": "/home/me/mine.py:METHOD",
            "seed": 1,
            "data": {"name": "/clinic/Mrs X/study.csv", "root": "/clinic", "sites": ["A"]},
        }
    )
    assert "clinic" not in json.dumps(kept)
    assert kept["data.name"] == "study.csv"
    (tmp_path / "results.json").write_text(
        json.dumps(
            {
                "test": {"A": {"macro_f1": 0.5, "loss": None}},
                "mean": {"macro_f1": 0.5},
                "retrogress": {"model": {"mean": 0.25}},
                "bytes": {"up_per_round_and_site": 8.0},
                "images_with_gradient": 3,
                "chosen_round": 1,
                "data_notes": ["patient p17 is in two parts"],
            }
        )
    )
    assert logs.final_scores(tmp_path) == {
        "macro_f1/test/A": 0.5,
        "macro_f1/test/mean": 0.5,
        "retrogress/model": 0.25,
        "bytes/up_per_round_and_site": 8.0,
        "images_with_gradient": 3.0,
        "chosen_round": 1.0,
    }


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"counterpoint.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SettingsError, match=rf"pip install 'counterpoint\[{name}\]'"):
        logged(tmp_path / "run", name).__enter__()
    with pytest.raises(SettingsError, match="did you mean 'mlflow'"):
        logged(tmp_path / "run", "mlfow").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_mlflow_tells_its_makers_nothing() -> None:
    asks = "import counterpoint.report.mlflow, mlflow.telemetry.utils as of"
    asks += "; print(of.is_telemetry_disabled())"
    silencing = ("CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY")
    env = {name: value for name, value in os.environ.items() if name not in silencing}
    told = subprocess.run([sys.executable, "-c", asks], env=env, capture_output=True, text=True)
    assert told.stdout.strip() == "True", told.stderr
