"""NVIDIA FLARE: real processes, one start. Its simulator gives the run on one machine."""

import json

import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: pip install .[flare]")

from counterpoint import api, run
from counterpoint.flare.job import SERVER, SITE, write_job
from counterpoint.flare.provision import make_kits
from counterpoint.flare.simulate import gather_from_sites, lay_out, run_simulator
from counterpoint.remote import Plan
from counterpoint.remote.site_file import read_site_file
from tests.running import call
from tests.test_remote import SETTINGS, SIX, Loopback, small  # noqa: F401  (a fixture)


def test_the_simulator_gives_the_run_on_one_machine(small, tmp_path, monkeypatch):  # noqa: F811
    """Six methods as six runs of one job, so that the processes start only once."""
    monkeypatch.setattr(api, "draw_figures", lambda result: None)
    plans, out = [], tmp_path / "runs"
    for method in SIX:
        run(method, str(small), out=tmp_path / "here" / method, settings=SETTINGS)
        made = Loopback(tmp_path, method, small)
        plans.append(Plan(**{**vars(made.plan), "name": method}))
    workspace, told = tmp_path / "flare", []
    lay_out(workspace, plans[0], made.federation, list(made.sites.values()), out)
    write_job(workspace / "job", plans)
    run_simulator(workspace, plans, told.append)
    assert not [event for event in told if "warning" in event]
    for plan in plans:
        mine, reference = out / plan.name, tmp_path / "here" / plan.name
        gather_from_sites(workspace, plan, mine)
        files = ["scores.csv", "payloads.csv", "test_cases.csv", "results.json"]
        models = [
            f.relative_to(reference) for f in (reference / "models").rglob("*") if f.is_file()
        ]
        assert len(models) >= 2
        for file in (*files, *models):
            assert (mine / file).read_bytes() == (reference / file).read_bytes(), (plan.name, file)
        assert not list((mine / "state").glob("site-*"))  # they are the sites' own


def test_what_needs_all_data_in_one_place_is_refused(small, tmp_path):  # noqa: F811
    for method, data, more in (
        ("pooled", small, []),
        ("fedavg", "phantom", ["--holdout", "west"]),
    ):
        arguments = ["flare", "simulate", method, data, "--out", tmp_path / "run", *more]
        code, _, errors = call(*arguments, "--image-size", 32)
        assert code == 2
        assert "counterpoint run" in " ".join(errors.split())
        assert not (tmp_path / "run").exists()


def test_kits_let_nothing_in_but_counterpoint_and_no_log_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["flare", "init", "prrfl", "/srv/scans/table.csv", "--out", "together"]
    code, _, errors = call(*command, "--sites", "north,south", "--classes", "a,b", "--rounds", 2)
    assert code == 0, errors
    (plans,) = {f.read_text() for f in (tmp_path / "together" / "job").rglob("plans.json")}
    assert "scans" not in json.dumps(json.loads(plans)["together"]["settings"]["data"]["root"])
    kits = make_kits(tmp_path / "together")
    for name, allowed in (("north", SITE), ("south", SITE), ("localhost", SERVER)):
        local = kits / name / "local"
        resources = json.loads((local / "resources.json.default").read_text())
        assert resources["class_allow_list"] == [allowed]
        assert resources.get("allow_log_streaming", False) is False
        rights = json.loads((local / "authorization.json.default").read_text())["permissions"]
        assert {role["byoc"] for role in rights.values()} == {"none"}
        assert {role["shell_commands"] for role in rights.values()} == {"none"}
    own = read_site_file(kits / "north" / "local" / "counterpoint-north.yaml")
    assert own.data == "/srv/scans/table.csv"
    assert own.storage == kits / "north" / "counterpoint"
