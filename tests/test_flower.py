"""Flower: real processes, one start; and its faults over a grid in this process."""

import contextlib
import shutil
import socket
import threading
import tomllib
import types
from dataclasses import replace

import pandas as pd
import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install .[flower]")

from flwr.app import Context, Error, RecordDict, UserConfig
from flwr.app import Message as Parcel
from flwr.supercore.task_identity import TaskIdentity

from counterpoint import api, run
from counterpoint.encryption import read_key
from counterpoint.errors import StateError
from counterpoint.flower import client, simulate
from counterpoint.flower import server as server_app
from counterpoint.flower.programs import SERVER, SITE, environment
from counterpoint.flower.simulate import free_ports, lay_out, started
from counterpoint.flower.site import Site
from counterpoint.flower.write import write_app
from counterpoint.remote.rehearsal import gather_from_sites
from counterpoint.remote.site_file import read_site_file, settings_file, write_site_file
from tests.markers import damage, found, found_in, markers, plant
from tests.running import call
from tests.test_remote import (  # noqa: F401  (a fixture)
    SETTINGS,
    SIX,
    Loopback,
    assert_equal,
    sites_by_round,
    small,
    warnings,
)


def test_processes_give_the_run_on_one_machine(small, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(api, "draw_figures", lambda result: None)
    workspace, out, told = tmp_path / "flower", tmp_path / "runs", []
    run("prrfl", str(small), out=tmp_path / "here", settings=SETTINGS | {"rounds": 1})
    made = Loopback(tmp_path, "prrfl", small, rounds=1)
    lay_out(made.rehearsal(workspace, out))
    with started(workspace, list(made.plan.sites)) as flower:
        flower.run(write_app(workspace / "app", made.plan), made.plan.name, told.append)
    assert not [event for event in told if "warning" in event]
    gather_from_sites(workspace, made.plan, out / "run")
    here = tmp_path / "here"
    models = [file.relative_to(here) for file in (here / "models").rglob("*") if file.is_file()]
    assert len(models) >= 2
    for file in ("scores.csv", "payloads.csv", "test_cases.csv", "results.json", *models):
        assert (out / "run" / file).read_bytes() == (here / file).read_bytes(), file
    assert not list((out / "run" / "state").glob("site-*"))  # they are the sites' own


@contextlib.contextmanager
def recorded(port):
    """Give the port of a proxy, and what comes through it to the server at a port."""
    came = []

    def pump(source, target, keep):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if keep is not None:
                    keep.append(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve():
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:  # it has not started yet
                near.close()
                continue
            keep = []
            came.append(keep)
            threading.Thread(target=pump, args=(near, far, keep), daemon=True).start()
            threading.Thread(target=pump, args=(far, near, None), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1], lambda: [b"".join(one) for one in came]
    finally:
        listener.close()


@pytest.mark.slow
def test_nothing_of_patients_comes_to_the_server(small, tmp_path, monkeypatch):  # noqa: F811
    """A run whose training fails with an error full of markers, then one with a damaged image.

    Searched are all bytes that come to the SuperLink from the sites, and all that it writes.
    """
    workspace, (port, *more) = tmp_path / "flower", free_ports(3)
    fails = Loopback(tmp_path, "fedavg", small, rounds=1, model="tests.markers:Fails")
    runs = Loopback(tmp_path, "fedavg", small, rounds=1)
    clients = list(fails.plan.sites)
    lay_out(fails.rehearsal(workspace, tmp_path / "runs"))
    tables = plant(tmp_path / "data", fails.sites)
    known = markers(tables.values())
    for client_name, site in fails.plan.sites.items():
        place = workspace / "sites" / client_name
        own = {"storage": str(place), "data": str(tables[site]), "imports": [""]}
        write_site_file(place / "local" / settings_file(client_name), own)
    monkeypatch.setattr(simulate, "free_ports", lambda count: [port, *more])
    start = simulate.Flower.start
    with recorded(port) as (proxy, came):

        def through(flower, name, *command):
            near = f"127.0.0.1:{proxy}"
            sites = "--superlink" in command
            words = [near if sites and one == f"127.0.0.1:{port}" else one for one in command]
            return start(flower, name, *words)

        monkeypatch.setattr(simulate.Flower, "start", through)
        told = []
        with started(workspace, clients) as flower:
            plan = replace(fails.plan, name="fails")
            with pytest.raises(StateError, match="0 of 2 sites"):
                flower.run(write_app(workspace / "app", plan), "fails", told.append)
            damage(tables["west"])
            plan = replace(runs.plan, name="damaged")
            flower.run(write_app(workspace / "app-2", plan, 1), "damaged", told.append)
        received = came()
    assert any("'west' is left out: the site's data can't be used" in str(one) for one in told)
    assert any(b"visit" in one for one in received)
    assert any(b"refused" in one for one in received)
    assert not set().union(*(found(known, one) for one in received))
    for place in ("server", "home", "../runs"):
        assert not found_in(known, workspace / place), place
    for log in ("server", "fails", "damaged"):
        assert not found(known, (workspace / f"{log}.log").read_bytes()), log
    for name in clients:  # each site's own log has it, and the search finds it there
        assert {"patient", "file name"} <= found(known, (workspace / f"{name}.log").read_bytes())


class Grid:
    """Flower's grid without a network: a message goes to the ClientApp, which asks its site."""

    def __init__(self, folder, method, data, monkeypatch, **settings):
        min_sites = 0 if settings.get("encrypt") else 1
        self.folder, self.monkeypatch = folder, monkeypatch
        self.made = Loopback(folder, method, data, **settings)
        self.plan, self.sites = self.made.plan, self.made.sites
        lay_out(self.made.rehearsal(folder, folder))
        write_site_file(
            folder / "server" / "local" / "counterpoint-server.yaml",
            {"runs": str(folder / "server-runs"), "imports": ["tests."]},
        )
        self.app = write_app(folder / "app", self.plan, min_sites=min_sites)
        values = tomllib.loads((self.app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
        self.config = UserConfig(values["config"])
        self.nodes = dict(enumerate(self.plan.sites, start=1))
        self.names = {}
        self.replies = {}
        self.change = lambda client, parcel, reply: reply()
        self.said = []

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        for name in self.plan.sites:
            own = read_site_file(self.folder / "sites" / name / "local" / settings_file(name))
            self.stack.enter_context(Site(name, own).listening(str(self.folder / name)))
        return self

    def __exit__(self, *error):
        self.stack.close()

    def get_nodes(self):
        return [
            types.SimpleNamespace(node_id=node, name=self.names.get(node, ""))
            for node in self.nodes
        ]

    def push_messages(self, parcels):
        sent = []
        for number, parcel in enumerate(parcels, start=len(self.replies)):
            parcel.metadata.__dict__["_message_id"] = f"message-{number}"
            node = parcel.metadata.dst_node_id
            self.monkeypatch.setenv(SITE, str(self.folder / self.nodes[node]))
            context = Context(1, node, UserConfig({}), RecordDict(), self.config)

            def reply(parcel=parcel, context=context):
                return client.app(parcel, context)

            self.replies[f"message-{number}"] = self.change(self.nodes[node], parcel, reply)
            sent.append(f"message-{number}")
        return sent

    def pull_messages(self, numbers):
        found = [self.replies[number] for number in numbers]
        return [parcel for parcel in found if parcel is not None]

    def conduct(self, deadline=0):
        self.monkeypatch.setenv(SERVER, str(self.folder / "server/local/counterpoint-server.yaml"))
        config = UserConfig({**self.config, "deadline": deadline})
        context = Context(1, 0, UserConfig({}), RecordDict(), config)
        self.monkeypatch.setattr(server_app, "reporter", lambda log, events: self.said.append)
        server_app.app(self, context)


@pytest.fixture
def grid(request, small, tmp_path, quick, monkeypatch):  # noqa: F811
    monkeypatch.setattr(server_app, "ASK_AGAIN", 0.01)
    monkeypatch.setattr(server_app, "PATIENCE", 0.2)
    for name, value in (("_run_id", 1), ("_task_id", 1), ("_node_id", 0)):
        monkeypatch.setattr(TaskIdentity, name, value)
    more = getattr(request, "param", {})
    more = {"method": more} if isinstance(more, str) else more
    given = {"method": "fedavg", "rounds": 3, **more}
    with Grid(tmp_path, data=small, monkeypatch=monkeypatch, **given) as made:
        yield made


def settled(grid):
    """The folders as `assert_equal` and `sites_by_round` look for them."""
    shutil.copytree(grid.folder / "server-runs" / "run", grid.folder / "server", dirs_exist_ok=True)
    for name, site in grid.plan.sites.items():
        shutil.copytree(grid.folder / "sites" / name, grid.folder / site)
    return grid


def in_round(grid, round, which, change):
    """Have an answer changed on its way, in one round at one client."""

    def maybe(name, parcel, reply):
        text = client.from_record(parcel.content)[0]
        return change(parcel, reply) if f'"round": {round},' in text and name == which else reply()

    grid.change = maybe


@pytest.mark.parametrize("grid", SIX, indirect=True)
def test_over_a_grid_it_is_the_run_on_one_machine(grid, small, tmp_path):  # noqa: F811
    run(
        grid.plan.settings.method.name,
        str(small),
        out=tmp_path / "here",
        settings=SETTINGS | {"rounds": 3},
    )
    grid.conduct()
    assert not warnings(grid)
    assert_equal(settled(grid), tmp_path / "here")


@pytest.mark.parametrize("grid", [{"encrypt": True}], indirect=True)
def test_over_a_grid_the_encrypted_run_is_the_plain_one_but_for_rounding(grid, small, tmp_path):  # noqa: F811
    run("fedavg", str(small), out=tmp_path / "here", settings=SETTINGS | {"rounds": 3})
    grid.conduct()
    assert not warnings(grid)
    server = settled(grid).folder / "server"
    mine, wanted = (pd.read_csv(place / "scores.csv") for place in (server, tmp_path / "here"))
    pd.testing.assert_frame_equal(mine, wanted, rtol=0, atol=1e-3)
    assert (pd.read_csv(server / "payloads.csv")["bytes"] > 60_000).all()


FAULTS = {
    "silent": (lambda parcel, reply: None, "no answer came in time"),
    "gone": (
        lambda parcel, reply: Parcel(Error(3, "Node Unavailable"), reply_to=parcel),
        "Node Unavailable",
    ),
    "something else": (
        lambda parcel, reply: Parcel(RecordDict(), reply_to=parcel),
        "no message of Counterpoint",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_site_without_an_answer_is_left_out_and_taken_back_in(grid, case):
    change, words = FAULTS[case]
    in_round(grid, 2, "site-2", change)
    grid.conduct(deadline=5 if case != "silent" else 1)
    (warning,) = warnings(grid)
    assert "round 2: site 'west'" in warning
    assert words in warning
    both = ["east", "west"]
    assert sites_by_round(settled(grid)) == {1: both, 2: ["east"], 3: both}


def test_without_the_sites_own_process_only_a_fixed_sentence_leaves(grid):
    def without(parcel, reply):
        grid.monkeypatch.setenv(SITE, "/srv/patients/jane-doe")
        answer = reply()
        assert answer.error.reason == client.NOT_THERE
        return answer

    in_round(grid, 2, "site-2", without)
    grid.conduct()
    (warning,) = warnings(grid)
    assert "jane" not in warning
    assert client.NOT_THERE in warning


def test_a_node_that_was_registered_with_a_name_has_no_other(grid):
    grid.nodes = {1: "site-1", 2: "site-2", 3: "site-2"}  # as it says of itself
    grid.names = {1: "site-1", 2: "site-2", 3: "stranger"}
    asked = []

    def note(name, parcel, reply):
        asked.append(parcel.metadata.dst_node_id)
        return reply()

    grid.change = note
    grid.conduct()
    assert set(asked) == {1, 2}


def test_a_run_that_was_stopped_goes_on(grid, small, tmp_path):  # noqa: F811
    def stop(parcel, reply):
        raise KeyboardInterrupt

    run("fedavg", str(small), out=tmp_path / "here", settings=SETTINGS | {"rounds": 3})
    in_round(grid, 3, "site-2", stop)
    with pytest.raises(KeyboardInterrupt):
        grid.conduct()
    grid.change = lambda name, parcel, reply: reply()
    grid.conduct()
    assert_equal(settled(grid), tmp_path / "here")


def test_the_app_has_settings_and_no_code(tmp_path, monkeypatch):
    from flwr.cli.config_utils import load_and_validate

    monkeypatch.chdir(tmp_path)
    command = ["flower", "init", "prrfl", "/srv/scans/table.csv", "--out", "together"]
    code, _, errors = call(*command, "--sites", "north,south", "--classes", "a,b", "--rounds", 2)
    assert code == 0, errors
    app = tmp_path / "together" / "app"
    assert sorted(file.name for file in app.iterdir()) == ["README.md", "pyproject.toml"]
    config, remarks = load_and_validate(app / "pyproject.toml")
    assert not remarks
    assert "scans" not in config["tool"]["flwr"]["app"]["config"]["plan"].partition("method")[0]
    own = tmp_path / "together" / "sites" / "north"
    read = read_site_file(own / "local" / "counterpoint-north.yaml")
    assert read.data == "/srv/scans/table.csv"
    assert read.storage == own / "counterpoint"
    proxy = (tmp_path / "together" / "server" / "nginx.conf").read_text()
    assert "location /v1/fleet/ {" in proxy
    assert "control" not in proxy


def test_sites_of_an_encrypted_run_get_a_key_and_nobody_else(tmp_path):
    command = ["flower", "init", "prrfl", "table.csv", "--out", tmp_path / "together", "--encrypt"]
    more = ["--sites", "north,south", "--classes", "a,b", "--rounds", 2]
    assert call(*command, *more, "--min-sites", 1)[0] == 2
    assert not (tmp_path / "together").exists()
    code, _, errors = call(*command, *more)
    assert code == 0, errors
    keys = set()
    for site in ("north", "south"):
        place = tmp_path / "together" / "sites" / site / "local"
        keys.add(read_key(read_site_file(place / f"counterpoint-{site}.yaml").key))
    (key,) = keys
    files = [file for file in (tmp_path / "together").rglob("*") if file.is_file()]
    assert sum(key in file.read_bytes() for file in files) == 2


def test_flower_tells_nobody_of_itself_unless_asked_to(monkeypatch):
    for name in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK"):
        monkeypatch.delenv(name, raising=False)
    assert environment()["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment()["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    assert environment()["FLWR_TELEMETRY_ENABLED"] == "1"


def test_what_needs_all_data_in_one_place_is_refused(small, tmp_path):  # noqa: F811
    code, _, errors = call(
        "flower", "simulate", "pooled", small, "--out", tmp_path / "run", "--image-size", 32
    )
    assert code == 2
    assert "counterpoint run" in " ".join(errors.split())
    assert not (tmp_path / "run").exists()
