"""Orders and answers as messages: a run across sites equals the run on one machine, bit for bit."""

import json
import shutil

import pandas as pd
import pytest

from counterpoint import run
from counterpoint.api import prepare
from counterpoint.data import write_phantom
from counterpoint.remote import Desk, Message, Plan
from counterpoint.remote.afar import conduct_afar
from counterpoint.remote.policy import Policy
from tests.running import SHORT, TINY

SIX = ["prrfl", "harmofl", "fedavg", "fedbn", "scaffold", "moon"]
SETTINGS = SHORT | TINY | {"rounds": 2}


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return a folder with the phantom's images for two sites, few and small."""
    folder = write_phantom(tmp_path_factory.mktemp("small") / "data", size=32, scale=0.1)
    for site in ("north", "south"):
        shutil.rmtree(folder / site)
    return folder


class Loopback:
    """An engine without a network: every message goes through its bytes to the site's desk."""

    def __init__(self, folder, method, data, **settings):
        self.folder = folder
        chosen, federation, sites = prepare(
            method, str(data), folder / "none", SETTINGS | settings, print
        )
        facts = {
            "data": federation.name,
            "protocol": federation.protocol,
            "holdout": None,
            "data_fingerprint": federation.fingerprint,
            "data_notes": list(federation.notes),
        }
        self.plan = Plan(
            name="run",
            settings=chosen,
            classes=federation.classes,
            form=federation.form,
            sites={f"site-{number}": site.name for number, site in enumerate(sites, start=1)},
            facts=facts,
        )
        self.sites = {site.name: site for site in sites}
        self.policies = {}
        self.desks = {}
        self.said = []
        self.heard = []
        self.change = lambda site, message, reply: reply

    def desk(self, site):
        if site not in self.desks:
            plan = Plan.from_dict(json.loads(json.dumps(self.plan.as_dict())), ("tests.",))
            self.desks[site] = Desk(
                plan,
                site,
                self.folder / site,
                bring=lambda plan: (self.sites[site], "fingerprint"),
                policy=self.policies.get(site, Policy()),
                report=self.said.append,
            )
        return self.desks[site]

    def send(self, messages):
        replies = {}
        for site, message in reversed(messages.items()):  # the order of arrival must not matter
            message = Message.unpacked(*message.packed())
            reply = self.change(site, message, lambda m=message, s=site: self.desk(s).answer(m))
            reply = reply() if callable(reply) else reply
            if reply is not None:
                text, data = reply.packed()
                self.heard.append(text)
                replies[site] = Message.unpacked(text, data)
        return replies

    def run(self, min_sites=2):
        def report(event):
            self.said.append(event)

        return conduct_afar(self.plan, self.folder / "server", self.send, min_sites, report)


def warnings(engine):
    return [event["warning"] for event in engine.said if "warning" in event]


def assert_equal(engine, reference):
    """What the server and the sites have is what the run on one machine left."""
    server = engine.folder / "server"
    for file in ("scores.csv", "payloads.csv", "results.json"):
        assert (server / file).read_bytes() == (reference / file).read_bytes(), file
    whole = reference / "models" / "global.safetensors"
    assert whole.exists() == (server / "models" / "global.safetensors").exists()
    if whole.exists():
        assert (server / "models" / "global.safetensors").read_bytes() == whole.read_bytes()
    assert not (server / "models" / "personal").exists()
    cases = []
    for site in engine.sites:
        model = f"models/personal/{site}.safetensors"
        there = engine.folder / site / "run"
        assert (there / model).read_bytes() == (reference / model).read_bytes()
        cases.append(pd.read_csv(there / "test_cases.csv", dtype=str))
    together = pd.read_csv(reference / "test_cases.csv", dtype=str)
    pd.testing.assert_frame_equal(pd.concat(cases, ignore_index=True), together)


@pytest.mark.parametrize("method", SIX)
def test_equals_the_run_on_one_machine(small, tmp_path, quick, method):
    reference = tmp_path / "reference"
    run(method, str(small), out=reference, settings=SETTINGS)
    engine = Loopback(tmp_path, method, small)
    engine.run()
    assert not warnings(engine)
    assert_equal(engine, reference)
