"""NVIDIA FLARE: real processes, one start. Its simulator gives the run on one machine."""

import errno
import json
import shutil
import stat
from dataclasses import replace

import pandas as pd
import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: pip install .[flare]")

from counterpoint import api, run
from counterpoint.encryption import mark_of, read_key
from counterpoint.errors import EncryptionError, SettingsError, WriteError
from counterpoint.flare.check import check_kit
from counterpoint.flare.job import SERVER, SITE, write_job
from counterpoint.flare.provision import make_kits
from counterpoint.flare.session import copied
from counterpoint.flare.simulate import lay_out, run_simulator
from counterpoint.remote import Plan
from counterpoint.remote.rehearsal import gather_from_sites
from counterpoint.remote.site_file import read_site_file
from tests.running import call
from tests.test_remote import SETTINGS, SIX, Loopback, small  # noqa: F401  (a fixture)


def test_the_simulator_gives_the_run_on_one_machine(small, tmp_path, monkeypatch):  # noqa: F811
    """Six methods as six runs of one job, so that the processes start only once."""
    monkeypatch.setattr(api, "draw_figures", lambda result: None)
    plans, out = [encrypted_plan(small, tmp_path)], tmp_path / "runs"
    for method in SIX:
        run(method, str(small), out=tmp_path / "here" / method, settings=SETTINGS)
        made = Loopback(tmp_path, method, small)
        plans.append(Plan(**{**vars(made.plan), "name": method}))
    workspace, told = tmp_path / "flare", []
    lay_out(replace(made.rehearsal(workspace, out), plan=plans[0]))
    write_job(workspace / "job", plans)
    run_simulator(workspace, plans, told.append)
    assert not [event for event in told if "warning" in event]
    same_but_for_rounding(plans[0], workspace, out, tmp_path / "here" / "prrfl")
    for plan in plans[1:]:
        mine, reference = out / plan.name, tmp_path / "here" / plan.name
        gather_from_sites(workspace, plan, mine)
        files = ["scores.csv", "payloads.csv", "test_cases.csv", "results.json"]
        models, brought = (
            {file.relative_to(run) for file in (run / "models").rglob("*.safetensors")}
            for run in (reference, mine)
        )
        assert models == brought
        for file in (*files, *models):
            assert (mine / file).read_bytes() == (reference / file).read_bytes(), (plan.name, file)
        assert not list((mine / "state").glob("site-*"))  # they are the sites' own


def encrypted_plan(data, folder):
    """A run in which what leaves is encrypted, with the key that `lay_out` makes."""
    made = Loopback(folder, "prrfl", data, encrypt=True)
    return Plan(**{**vars(made.plan), "name": "encrypted"})


def same_but_for_rounding(plan, workspace, out, reference):
    gather_from_sites(workspace, plan, out / plan.name)
    mine, wanted = (pd.read_csv(place / "scores.csv") for place in (out / plan.name, reference))
    pd.testing.assert_frame_equal(mine, wanted, rtol=0, atol=1e-3)
    sent = pd.read_csv(out / plan.name / "payloads.csv")
    assert (sent["bytes"] > 60_000).all()
    assert not list((out / plan.name).rglob("*.key"))


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
    assert not list(kits.rglob("*.tenseal"))
    own = read_site_file(kits / "north" / "local" / "counterpoint-north.yaml")
    assert own.data == "/srv/scans/table.csv"
    assert own.storage == kits / "north" / "counterpoint"


def test_a_name_that_is_twice_in_a_sites_own_settings_is_refused(tmp_path):
    """A policy that a second one further down replaces would protect nobody."""
    file = tmp_path / "counterpoint-north.yaml"
    file.write_text("data: table.csv\npolicy: {rounds: 3}\npolicy: {}\n")
    with pytest.raises(SettingsError, match=r"line 3, column 1: 'policy' is twice"):
        read_site_file(file)


def test_kits_of_an_encrypted_run_have_a_key_but_the_servers(tmp_path):
    """FLARE's own provisioning makes it; sites find it, and read each other's ciphertexts."""
    command = ["flare", "init", "prrfl", "table.csv", "--out", tmp_path / "together", "--encrypt"]
    more = ["--sites", "north,south", "--classes", "a,b", "--rounds", 2]
    code, _, errors = call(*command, *more)
    assert code == 0, errors
    kits = make_kits(tmp_path / "together")
    keys = []
    for name in ("north", "south"):
        own = read_site_file(kits / name / "local" / f"counterpoint-{name}.yaml")
        assert stat.S_IMODE(own.key.stat().st_mode) == 0o600
        keys.append(read_key(own.key))
        (line,) = (one for one in check_kit(kits / name) if one.what == "encryption key")
        assert line.ok
        assert mark_of(keys[0]) in line.found
    assert mark_of(keys[0]) == mark_of(keys[1])
    (servers,) = (kits / "localhost").rglob("*.tenseal")
    with pytest.raises(EncryptionError, match="no secret key"):
        read_key(servers)
    assert not list((kits / "admin@consortium.org").rglob("*.tenseal"))
    own.key.chmod(0o644)
    (line,) = (one for one in check_kit(kits / name) if one.what == "encryption key")
    assert line.ok is False
    assert "chmod 600" in line.todo


def test_too_few_sites_to_encrypt_are_refused_before_anything_is_written(tmp_path):
    command = ["flare", "init", "fedavg", "table.csv", "--out", tmp_path / "together"]
    more = ["--sites", "a,b", "--classes", "x,y", "--min-sites", 1]
    code, _, errors = call(*command, *more, "--encrypt")
    assert code == 2
    assert "2 sites or more" in " ".join(errors.split())
    assert not (tmp_path / "together").exists()


def test_results_are_collected_whole_or_not_at_all(tmp_path, monkeypatch):
    """The disk is full half-way: nothing is there, and it can be tried again."""
    run, runs = tmp_path / "job" / "run-1", tmp_path / "runs"
    run.mkdir(parents=True)
    (run / "settings.yaml").write_text("seed: 1\n")

    def full(source, target):
        target.mkdir(parents=True)
        (target / "settings.yaml").write_text("se")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", full)
        with pytest.raises(WriteError, match=r"disk is full: .*run-1 can't be written"):
            copied(run, runs)
    assert list(runs.iterdir()) == []
    assert (copied(run, runs) / "settings.yaml").read_text() == "seed: 1\n"
    assert [place.name for place in runs.iterdir()] == ["run-1"]
