"""Orders and answers as messages: a run across sites equals the run on one machine, bit for bit."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from pydantic import ValidationError

from counterpoint import run
from counterpoint.api import prepare
from counterpoint.data import write_phantom
from counterpoint.errors import PayloadError, SettingsError, StateError
from counterpoint.files import read_tensors, write_bytes
from counterpoint.kept import Kept
from counterpoint.payload import from_bytes
from counterpoint.remote import Desk, Message, Plan
from counterpoint.remote.afar import conduct_afar
from counterpoint.remote.answer import good_intervals
from counterpoint.remote.audit import read_record
from counterpoint.remote.memory import Memory
from counterpoint.remote.message import sha256_of
from counterpoint.remote.order import read_kept
from counterpoint.remote.plan import plan_without_data
from counterpoint.remote.policy import Policy
from counterpoint.remote.rehearsal import Rehearsal, plan_of, rehearse
from counterpoint.remote.server_file import read_server_file
from counterpoint.remote.site_file import SiteFile, example
from counterpoint.server import WeightedMean
from counterpoint.tasks import make_task
from tests.lies import of_another_site, spoilt, without_one
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


@pytest.fixture(autouse=True)
def _one_thread():
    """The desks of a loopback share this process; a site of its own sets its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Loopback:
    """An engine without a network: every message goes through its bytes to the site's desk."""

    def __init__(self, folder, method, data, **settings):
        self.folder = folder
        chosen, federation, sites = prepare(
            method, str(data), folder / "none", SETTINGS | settings, print
        )
        self.plan = plan_of("run", chosen, federation)
        self.federation = federation
        self.sites = {site.name: site for site in sites}
        self.policies = {}
        self.keys = {}
        self.desks = {}
        self.said = []
        self.heard = []
        self.change = lambda site, message, reply: reply

    def rehearsal(self, workspace, runs):
        """The same run with its sites as processes on this machine."""
        sites = list(self.sites.values())
        return Rehearsal(self.plan, self.federation, sites, runs / self.plan.name, workspace)

    def desk(self, site):
        if site not in self.desks:
            plan = Plan.from_dict(json.loads(json.dumps(self.plan.as_dict())), ("tests.",))
            self.desks[site] = Desk(
                plan,
                site,
                self.folder / site,
                bring=lambda plan: (self.sites[site], "fingerprint"),
                policy=self.policies.get(site, Policy()),
                key=self.keys.get(site),
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
        there = engine.folder / site / "run"
        own = f"models/personal/{site}.safetensors"  # a site has its model, whoever else has it
        if whole.exists():
            mine, common = read_tensors(there / own), read_tensors(whole)
            assert mine.keys() == common.keys()
            assert all(torch.equal(mine[name], common[name]) for name in common)
        else:
            assert (there / own).read_bytes() == (reference / own).read_bytes()
        cases.append(pd.read_csv(there / "test_cases.csv", dtype=str))
    together = pd.read_csv(reference / "test_cases.csv", dtype=str)
    pd.testing.assert_frame_equal(pd.concat(cases, ignore_index=True), together)


@pytest.mark.parametrize("method", [*SIX, "local"])
def test_equals_the_run_on_one_machine(small, tmp_path, quick, method):
    reference = tmp_path / "reference"
    run(method, str(small), out=reference, settings=SETTINGS)
    engine = Loopback(tmp_path, method, small)
    engine.run()
    assert not warnings(engine)
    assert_equal(engine, reference)


def test_a_round_that_asks_fewer_sites_needs_no_more_answers(small, tmp_path, quick):
    """All sites must answer (two here), and one of them is drawn for each round."""
    half = {"participation": 0.5}
    run("fedavg", str(small), out=tmp_path / "reference", settings=SETTINGS | half)
    engine = Loopback(tmp_path, "fedavg", small, **half)
    engine.run(min_sites=len(engine.sites))
    assert not warnings(engine)
    assert_equal(engine, tmp_path / "reference")


# Faults: the round goes on without the site, is named, and the site comes back in


@pytest.fixture
def engine(small, tmp_path, quick):
    return Loopback(tmp_path, "fedavg", small, rounds=3)


def sites_by_round(engine):
    sent = pd.read_csv(engine.folder / "server" / "payloads.csv")
    up = sent[sent["direction"] == "up"]
    return {round: sorted(set(rows["site"])) for round, rows in up.groupby("round")}


def in_round(engine, round, site, change):
    """Have an answer changed on its way, in one round at one site."""

    def maybe(who, message, reply):
        if (who, message.says.get("round")) != (site, round):
            return reply
        return change(reply)

    engine.change = maybe


BAD = {
    "no answer": (lambda reply: None, "no answer came in time"),
    "not finite": (spoilt("head.bias", torch.tensor([0.0, torch.nan, 1.0])), "not finite"),
    "another shape": (spoilt("head.bias", torch.zeros(7)), "shapes"),
    "a name too many": (spoilt("patients", torch.zeros(7)), "patients"),
    "a name too few": (without_one, "other names"),
    "scores of another": (of_another_site, "scores are not as they should be"),
    "something else": (lambda reply: Message("hello"), "to something else"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_answer_is_left_out_and_named(engine, case, place):
    change, words = BAD[case]
    site = list(engine.sites)[place]
    in_round(engine, 2, site, change)
    if place == 0 and case in ("another shape", "a name too many", "a name too few"):
        pytest.skip("most sites decide; of two that differ, the first is believed")
    result = engine.run(min_sites=1)
    (warning,) = warnings(engine)
    assert "round 2" in warning
    assert site in warning
    assert words in warning
    others = sorted(set(engine.sites) - {site})
    assert sites_by_round(engine) == {1: sorted(engine.sites), 2: others, 3: sorted(engine.sites)}
    assert sorted(result.results["test"]) == sorted(engine.sites)


def test_too_few_sites_stop_the_run_and_it_goes_on_later(engine, small, tmp_path):
    never = tmp_path / "never"
    run("fedavg", str(small), out=never, settings=SETTINGS | {"rounds": 3})
    in_round(engine, 2, "west", lambda reply: None)
    with pytest.raises(StateError, match=r"round 2: 1 of 2 .* 2 are needed"):
        engine.run(min_sites=2)
    engine.change = lambda site, message, reply: reply
    engine.desks.clear()  # all processes begin anew
    engine.run(min_sites=2)
    assert_equal(engine, never)


def test_the_same_message_twice_is_worked_once(engine, small, tmp_path):
    never = tmp_path / "never"
    run("fedavg", str(small), out=never, settings=SETTINGS | {"rounds": 3})
    worked = []

    def twice(site, message, reply):
        first, again = reply(), reply()
        assert first.packed() == again.packed()
        worked.append(message.kind)
        return again

    engine.change = twice
    engine.run()
    assert worked.count("visit") == 8
    told = [e for e in engine.said if e.get("moment") == "epoch" and e["site"] == "west"]
    # once by the site as it trains, once by the server
    assert len(told) == 2 * 3
    assert_equal(engine, never)


def test_a_damaged_state_costs_the_site_one_round_of_training(engine):
    west = engine.folder / "west" / "run" / "state"

    def damage(site, message, reply):
        if (site, message.says.get("round")) == ("west", 3):
            file = west / "site-0001-00002-state.safetensors"
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        return reply

    engine.change = damage
    result = engine.run()
    assert any("the state before it is used" in warning for warning in warnings(engine))
    assert sorted(result.results["test"]) == sorted(engine.sites)


@pytest.mark.parametrize("method", ["fedavg", "prrfl", "scaffold"])
def test_answers_that_get_lost_leave_the_site_as_if_it_had_not_been_asked(
    small, tmp_path, quick, method
):
    """However many in a row: it goes on from the state that the server knows."""
    ends = []
    for name, worked in (("worked", True), ("asleep", False)):
        engine = Loopback(tmp_path / name, method, small, rounds=6)

        def lost(site, message, reply, worked=worked):
            if site != "west" or message.says.get("round") not in (2, 3, 4):
                return reply
            if worked:
                reply()
            return None

        engine.change = lost
        engine.run(min_sites=1)
        assert len(warnings(engine)) == 3  # and none of a state
        files = ["server/scores.csv", "server/results.json"]
        files += [f"{site}/run/models/personal/{site}.safetensors" for site in engine.sites]
        ends.append([(engine.folder / file).read_bytes() for file in files])
    assert ends[0] == ends[1]


def test_no_whole_state_leaves_the_site_out(engine):
    def damage(site, message, reply):
        if (site, message.says.get("round")) == ("west", 3):
            for file in (engine.folder / "west" / "run" / "state").glob("*-state.safetensors"):
                file.write_bytes(b"nothing")
        return reply

    engine.change = damage
    engine.run(min_sites=1)
    told = [w for w in warnings(engine) if w.startswith("round 3: site 'west' is left out")]
    assert told == [
        "round 3: site 'west' is left out: "
        "a file that the site keeps is damaged or missing, or can't be written"
    ]


def test_nothing_of_a_patient_leaves(engine, monkeypatch):
    """Planted in an error: a path with a name. It is in the site's own log, and nowhere else."""
    secret = "/data/patients/jane-doe/scan-17.png"
    take_mean = Memory.take_mean

    def stumble(memory, *asked):
        return (
            Path(secret).read_bytes() if "west" in str(memory.place) else take_mean(memory, *asked)
        )

    monkeypatch.setattr(Memory, "take_mean", stumble)
    engine.run(min_sites=1)
    assert any(secret in warning for warning in warnings(engine))  # the site's own
    assert not any("jane" in text for text in engine.heard)
    server = engine.folder / "server"
    assert not any(b"jane" in f.read_bytes() for f in server.rglob("*") if f.is_file())


def test_policy_is_the_sites_own(engine):
    engine.policies["west"] = Policy(forbid_names=("head.*",))
    engine.run(min_sites=1)
    assert sites_by_round(engine) == {n: ["east"] for n in (1, 2, 3)}
    assert any("does not let 'head.weight' leave" in w for w in warnings(engine))


def test_a_site_may_keep_even_the_common_model(small, tmp_path, quick):
    engine = Loopback(tmp_path, "fedavg", small)
    engine.policies = dict.fromkeys(engine.sites, Policy(share_model=False))
    result = engine.run()
    assert result.results["one_global_model"] is True
    assert not (engine.folder / "server" / "models").exists()


def test_the_record_has_all_that_left(engine):
    engine.run()
    record = read_record(engine.folder / "west")
    up = record[(record["direction"] == "up") & (record["name"] != "(text)")]
    sent = pd.read_csv(engine.folder / "server" / "payloads.csv")
    sent = sent[(sent["direction"] == "up") & (sent["site"] == "west")]
    visits = up[up["kind"] == "visit"]
    assert list(visits["name"]) == list(sent["name"])
    assert list(visits["bytes"]) == list(sent["bytes"])
    assert set(up["kind"]) == {"visit"}
    assert record["sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_a_message_that_was_changed_is_refused():
    text, data = Message("visit", {}, {"w": torch.ones(2)}).packed()
    for changed in ((text, data[:-1] + b"!"), (text, b""), ("{}", data), (text, None), (1, data)):
        with pytest.raises(PayloadError):
            Message.unpacked(*changed)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("settings", "method"), "/tmp/evil.py:METHOD"),
        (("settings", "schedule", "model"), "os:system"),
        (("settings", "model"), "subprocess:Popen"),
        (("settings", "schedule.model"), "subprocess:Popen"),
        (("settings", "schedule", "model"), "monai.networks.nets:warnings"),
        (("settings", "model_options"), {"args": ["true"]}),
        (("name",), "../../elsewhere"),
        (("name",), "audit.csv"),
        (("settings", "schedule", "model_options"), {"pretrained": True}),
        (("settings", "schedule", "model"), "monai.networks.nets:EfficientNetBN"),
        (("settings", "schedule", "model_options"), {"weights": "http://localhost/intranet"}),
        (("settings", "schedule", "model_options"), {"deep": [{"file_name": "x"}]}),
    ],
)
def test_a_plan_can_bring_no_code_and_reach_no_other_folder(small, tmp_path, place, value):
    values = Loopback(tmp_path, "fedavg", small, model="slim-vgg16").plan.as_dict()
    Plan.from_dict(values)
    part = values
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    with pytest.raises(SettingsError):
        Plan.from_dict(values)


def test_an_order_can_name_no_file_but_a_runs(engine):
    engine.run()
    state = engine.folder / "west" / "run" / "state"
    candidate, *_ = state.glob("*-candidate.safetensors")
    outside = engine.folder / "outside.safetensors"
    shutil.copy(candidate, outside)
    (mean, *_) = state.glob("mean-*.safetensors")
    for file, true in ((candidate, candidate), (Path("../../../outside.safetensors"), outside)):
        asked = Message(
            "test",
            {"candidate": [str(file.name if file is candidate else file), sha(true)], "of": 1},
        )
        answer = engine.desk("west").answer(asked)
        assert (answer.kind == "test") == (file is candidate), answer.says
    # and each only as what it is: a mean is no candidate
    asked = Message("test", {"candidate": [mean.name, sha(mean)], "of": 1})
    assert engine.desk("west").answer(asked).says["reason"] == "the message is not as it should be"


def sha(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("method", ["prrfl", "fedbn", "silobn"])
def test_a_model_of_the_sites_own_leaves_for_nobody(small, tmp_path, quick, method):
    """Neither where a hostile server asks with the right digest, nor where one site is left."""
    engine = Loopback(tmp_path, method, small, rounds=2)
    engine.change = lambda site, message, reply: None if site == "west" else reply
    engine.run(min_sites=1)
    assert not (tmp_path / "server" / "models" / "global.safetensors").exists()
    results = json.loads((tmp_path / "server" / "results.json").read_text())
    assert results["one_global_model"] is False
    desk = engine.desk("east")
    for name, sha256 in desk.memory.register["chosen"] + desk.memory.register["candidates"]:
        answer = desk.answer(Message("model", {"candidate": [name, sha256], "model": "any"}))
        assert answer.says["reason"] == "this model is the site's own; it does not leave"


def test_a_site_that_missed_a_round_is_told_all_that_is_new_to_it(small, tmp_path, quick):
    """The amplitude goes down once: to whom was there after round 1, to the other a round later."""
    engine = Loopback(tmp_path, "harmofl", small, rounds=3)
    in_round(engine, 2, "west", lambda reply: None)
    engine.run(min_sites=1)
    both = sorted(engine.sites)
    assert sites_by_round(engine) == {1: both, 2: ["east"], 3: both}
    log = pd.read_csv(engine.folder / "server" / "payloads.csv")
    down = log[(log["direction"] == "down") & (log["name"] == "harmonise.amplitude")]
    assert set(zip(down["round"], down["site"], strict=True)) == {(1, "east"), (2, "west")}


def rows_with(change):
    """Have the rows of a visit changed: all of them, by what is given."""

    def changed(says):
        return {"rows": [row | change for row in says["rows"]]}

    return changed


SHAPES = {
    "images in words": ("hello", {"images": "many"}),
    "no images": ("hello", {"images": 0}),
    "more images than there are": ("hello", {"images": 10**4000}),
    "a mark that can't be written": ("hello", {"data": "\ud800"}),
    "a weight of its own": ("visit", {"weight": 2.0}),
    "a count that can't be written": ("visit", {"gradients": 10**4200}),
    "a stage that can't be written": ("visit", rows_with({"stage": "\ud800"})),
    "a stage that breaks the line": ("visit", rows_with({"stage": "\r1"})),
    "a score beyond its range": ("visit", rows_with({"macro_f1": 1e9})),
    "a round that is none": ("visit", rows_with({"round": 10**30})),
    "scores of the test before it": ("visit", rows_with({"split": "test"})),
    "scores of another model": ("visit", rows_with({"model": "other"})),
    "the same scores twice": ("visit", lambda says: {"rows": says["rows"] * 2}),
    "intervals by no name": ("test", {"intervals": {"\ud800": [0, 1]}}),
    "a test that is none": ("test", lambda says: {"row": says["row"] | {"split": "validation"}}),
    "a round for the test": ("test", lambda says: {"row": says["row"] | {"round": 7}}),
    "a weight beyond all floats": ("visit", {"weight": 10**400}),
    "rows that are none": ("visit", {"rows": [3]}),
    "rows that lack scores": ("visit", {"rows": [{"site": "west"}]}),
    "no rows": ("visit", {"rows": []}),
    "a state that is none": ("visit", {"state": 7}),
    "intervals that are none": ("test", {"intervals": {"dice": "wide"}}),
}


@pytest.mark.parametrize("case", SHAPES)
def test_an_answer_of_another_form_costs_no_more_than_the_site(engine, case):
    kind, says = SHAPES[case]

    def change(site, message, reply):
        if (site, message.kind) != ("west", kind):
            return reply
        answer = reply()
        told = says(answer.says) if callable(says) else says
        return Message(answer.kind, answer.says | told, answer.tensors)

    engine.change = change
    result = engine.run(min_sites=1)
    assert warnings(engine)
    assert all("site 'west' is left out" in warning for warning in warnings(engine))
    assert "east" in result.results["test"]


@pytest.mark.parametrize("value", ["a loss", float("nan"), float("inf"), True, None])
def test_scores_that_are_no_numbers_are_not_taken(engine, value):
    def change(site, message, reply):
        if (site, message.says.get("round")) != ("west", 2):
            return reply
        answer = reply()
        rows = [row | {"loss": value} for row in answer.says["rows"]]
        return Message(answer.kind, answer.says | {"rows": rows}, answer.tensors)

    engine.change = change
    engine.run(min_sites=1)
    (warning,) = warnings(engine)
    assert "its scores are not as they should be" in warning


@pytest.mark.parametrize("kind", ["payload", "records"])
def test_noise_counts_though_the_answer_came_too_late(small, tmp_path, quick, kind):
    """The server has had it: two rounds asked are two rounds told, whoever made up the mean."""
    if kind == "records":
        pytest.importorskip("opacus")
    noised = {"privacy": kind, "statistics": "group", "noise": 1.0, "clip": 1.0}
    whole = Loopback(tmp_path / "whole", "fedavg", small, **noised)
    wanted = whole.run().results["privacy"]
    engine = Loopback(tmp_path / "late", "fedavg", small, **noised)

    def change(site, message, reply):
        answer = reply()
        return None if (site, message.says.get("round")) == ("west", 2) else answer

    engine.change = change
    told = engine.run(min_sites=1).results["privacy"]
    assert told["epsilon"] == wanted["epsilon"]
    if kind == "payload":  # the other sites have had one mean only with what west sent
        assert told["epsilon_of_means"]["west"] < wanted["epsilon_of_means"]["west"]


def test_the_name_of_a_rehearsal_is_looked_at_before_anything_is_made(small, tmp_path):
    with pytest.raises(SettingsError, match="'x y' can't be the name of a run"):
        rehearse("fedavg", str(small), lambda job: None, out=tmp_path / "x y", settings=SETTINGS)
    assert not (tmp_path / "x y").exists()


def test_a_site_that_came_after_the_start_is_known_in_the_end(small, tmp_path, quick):
    on_time = Loopback(tmp_path / "on_time", "fedavg", small)
    wanted = on_time.run().results
    engine = Loopback(tmp_path / "late", "fedavg", small)
    hellos = []

    def change(site, message, reply):
        if (site, message.kind) == ("west", "hello"):
            hellos.append(message)
            return None if len(hellos) == 1 else reply
        return reply

    engine.change = change
    results = engine.run(min_sites=1).results
    assert len(hellos) == 2
    assert results["training_images"] == wanted["training_images"]
    assert results["data_fingerprint"] == wanted["data_fingerprint"]


def test_a_policy_counts_the_rounds_itself(small, tmp_path, quick):
    """As many as the plan has are enough to end; more are refused whatever they are called."""
    engine = Loopback(tmp_path, "fedavg", small, rounds=3)
    engine.policies = dict.fromkeys(engine.sites, Policy(max_rounds=3))
    engine.run()
    assert not warnings(engine)
    engine = Loopback(tmp_path / "fewer", "fedavg", small, rounds=3)
    engine.policies = {"west": Policy(max_rounds=2)}
    asked = []
    engine.change = lambda site, message, reply: asked.append((site, message)) or reply
    engine.run(min_sites=1)
    (warning,) = warnings(engine)[-1:]
    assert "allows 2 rounds" in warning
    again = next(m for site, m in asked if site == "west" and m.says.get("round") == 1)
    renamed = Message("visit", again.says | {"keep_candidate": True}, again.tensors)
    assert "allows 2 rounds" in engine.desk("west").answer(renamed).says["reason"]
    assert (
        engine.desk("west").answer(Message("visit", again.says | {"round": -5}, again.tensors)).kind
        == "refused"
    )


def test_refusals_are_in_the_record_too(engine, monkeypatch):
    refused = engine.desk("west").answer(Message("nothing known"))
    assert refused.kind == "refused"
    assert "refused" in read_record(engine.folder / "west")["kind"].tolist()

    def full(*given):
        raise OSError("the disk is full of secrets")

    monkeypatch.setattr("counterpoint.remote.desk.record", full)
    refused = engine.desk("west").answer(Message("hello"))
    assert refused.says["reason"] == "the site can't write its record, so nothing leaves"


def test_a_run_goes_on_only_with_the_data_and_classes_that_it_began_with(engine):
    engine.run()
    engine.desks.clear()
    data = engine.sites["west"]
    desk = engine.desk("west")
    desk.bring = lambda plan: (data, "another fingerprint")
    assert (
        desk.answer(Message("hello")).says["reason"] == "the site's data can't be used as they are"
    )
    other = replace(engine.plan, classes=engine.plan.classes[::-1])
    assert other.fingerprint != engine.plan.fingerprint
    with pytest.raises(StateError, match="other settings"):
        conduct_afar(other, engine.folder / "server", engine.send, 2, print)


def test_a_damaged_register_is_begun_anew(engine):
    register = engine.folder / "west" / "run" / "state" / "register.json"

    def damage(site, message, reply):
        if (site, message.says.get("round")) == ("west", 3):
            register.write_text("{")
        return reply

    engine.change = damage
    result = engine.run()
    assert any("is damaged and is begun anew" in warning for warning in warnings(engine))
    assert sorted(result.results["test"]) == sorted(engine.sites)


@pytest.mark.parametrize("kind", [torch.complex64, torch.float8_e4m3fn, torch.int64])
@pytest.mark.parametrize("place", [0, 1])
def test_tensors_that_have_no_mean_are_left_out_whoever_sends_them(engine, kind, place):
    site = list(engine.sites)[place]

    def change(reply):
        answer = reply()
        odd = {name: tensor.to(kind) for name, tensor in answer.tensors.items()}
        return Message(answer.kind, answer.says, odd)

    in_round(engine, 2, site, change)
    engine.run(min_sites=1)
    (warning,) = warnings(engine)
    assert f"site '{site}' is left out" in warning
    assert "of which there is no mean" in warning


def test_a_site_weighs_as_many_images_as_it_has_said(small, tmp_path, quick):
    engine = Loopback(tmp_path, "fedavg", small, weighting="images")
    engine.run()
    assert not warnings(engine)
    engine = Loopback(tmp_path / "heavy", "fedavg", small, weighting="images")

    def change(reply):
        answer = reply()
        return Message(answer.kind, answer.says | {"weight": 1e9}, answer.tensors)

    in_round(engine, 2, "west", change)
    engine.run(min_sites=1)
    (warning,) = warnings(engine)
    assert "its weight should be 8 and is not" in warning


def test_a_mean_beyond_all_numbers_is_not_kept():
    mean = WeightedMean()
    for site in "AB":
        mean.add(site, {"w": torch.full((2,), 1.7e308, dtype=torch.float64)})
    with pytest.raises(PayloadError, match="too large to be a number"):
        mean.result()


def test_a_global_model_of_other_shapes_is_not_taken(small, tmp_path, quick):
    """The next site is asked."""
    engine = Loopback(tmp_path, "fedavg", small)
    asked = []

    def change(site, message, reply):
        if message.kind != "model":
            return reply
        asked.append(site)
        answer = reply()
        if len(asked) > 1:
            return answer
        flat = {n: t.flatten() if t.is_floating_point() else t for n, t in answer.tensors.items()}
        return Message("model", answer.says, flat)

    engine.change = change
    result = engine.run()
    assert len(asked) == 2
    result.model()


# What a site guards by itself, whatever the server asks


def orders_to_west(engine):
    """Do the run and give the orders that the site west had, the first round's first."""
    asked = []
    engine.change = lambda site, message, reply: asked.append((site, message)) or reply
    engine.run()
    return [message for site, message in asked if site == "west" and message.kind == "visit"]


NOISED = {"privacy": "payload", "noise": 1.0, "statistics": "group", "rounds": 2}


def test_with_noise_a_round_is_answered_once(small, tmp_path, quick):
    """Answers with noise that is drawn anew each time would have it averaged out."""
    engine = Loopback(tmp_path, "fedavg", small, **NOISED)
    orders = orders_to_west(engine)
    assert not warnings(engine)
    first, second, *_ = orders
    desk = engine.desk("west")
    assert desk.answer(second).packed() == desk.answer(second).packed()
    assert desk.answer(second).kind == "visit"
    for message in (first, second):
        other = Message("visit", message.says | {"keep_candidate": True, "x": 1}, message.tensors)
        reason = desk.answer(other).says["reason"]
        assert "has been answered, with noise" in reason
    desk.policy = Policy(repeats=1)
    other = Message("visit", first.says | {"x": 2}, first.tensors)
    assert desk.answer(other).kind == "visit"
    other = Message("visit", first.says | {"x": 3}, first.tensors)
    assert "has been answered, with noise" in desk.answer(other).says["reason"]
    (desk.folder.state / "register.json").write_text("{")
    other = Message("visit", first.says | {"x": 4}, first.tensors)
    assert "is damaged or missing" in desk.answer(other).says["reason"]


def test_with_noise_the_last_scores_are_told_once(small, tmp_path, quick):
    """Fine-tuned after the last merge, they are of noise that would be drawn anew."""
    engine = Loopback(tmp_path, "finetune", small, **NOISED | {"finetune_epochs": 1})
    orders = orders_to_west(engine)
    assert not warnings(engine)
    *_, last = orders
    assert last.says["round"] == 3
    desk = engine.desk("west")
    assert desk.answer(last).packed() == desk.answer(last).packed()
    assert desk.answer(last).kind == "visit"
    other = Message("visit", last.says | {"x": 1}, last.tensors)
    assert "has been answered, with noise" in desk.answer(other).says["reason"]


def test_an_answer_that_was_kept_and_not_noted_is_worked_again(small, tmp_path, quick, monkeypatch):
    """Killed between the two: it has not left, and is noted when it does."""
    engine = Loopback(tmp_path, "fedavg", small, **NOISED)
    remember, killed, asked = Memory.remember, [], []

    def dying(memory, *given):
        if "west" in str(memory.place) and not killed:
            killed.append(memory)
            raise StateError("killed")
        return remember(memory, *given)

    monkeypatch.setattr(Memory, "remember", dying)
    engine.change = lambda site, message, reply: asked.append((site, message)) or reply
    with pytest.raises(StateError, match="1 of 2 sites"):
        engine.run()
    engine.desks.clear()
    desk = engine.desk("west")
    message = next(m for site, m in asked if site == "west" and m.kind == "visit")
    assert killed
    assert desk.memory.trained == []
    assert desk.answer(message).kind == "visit"
    assert desk.memory.trained == [1]
    other = Message("visit", message.says | {"x": 1}, message.tensors)
    assert "has been answered" in desk.answer(other).says["reason"]


def test_options_of_networks_that_fetch_nothing_are_taken(small, tmp_path):
    values = Loopback(tmp_path, "fedavg", small, model="slim-vgg16").plan.as_dict()
    for model, options in {
        "EfficientNetBN": {"model_name": "efficientnet-b0", "pretrained": False},
        "SwinUNETR": {"dropout_path_rate": 0.1, "use_checkpoint": True},
        "UNet": {"act": ["prelu", {"init": 0.2}], "norm": "batch", "strides": [2, 2]},
    }.items():
        values["settings"]["schedule"]["model"] = f"monai.networks.nets:{model}"
        values["settings"]["schedule"]["model_options"] = options
        Plan.from_dict(values)


def test_an_answer_that_could_not_be_kept_is_worked_again(small, tmp_path, quick, monkeypatch):
    """With noise, too: it has never left."""
    engine = Loopback(tmp_path, "fedavg", small, **NOISED)
    full = []

    def write(path, data):
        if path.name.startswith("answer") and "west" in str(path) and not full:
            full.append(path)
            raise StateError("the disk is full")
        return write_bytes(path, data)

    monkeypatch.setattr("counterpoint.remote.memory.write_bytes", write)
    with pytest.raises(StateError, match="1 of 2 sites"):
        engine.run()
    engine.desks.clear()
    engine.run()
    assert full
    assert engine.desk("west").memory.trained == [1, 2, 3]


def test_rounds_before_an_upgrade_count(engine):
    """Their number alone was kept then."""
    engine.run()
    desk = engine.desk("west")
    file = desk.folder.state / "register.json"
    register = json.loads(file.read_text())
    file.write_text(json.dumps(register | {"worked": len(register.pop("trained"))}))
    assert desk.memory.trained == [1, 2, 3, 4]


def test_a_damaged_secret_marks_nothing(engine):
    (engine.desk("west").folder.path.parent / "secret").write_bytes(b"")
    assert engine.desk("west").answer(Message("hello")).kind == "refused"


def test_two_kits_with_one_secret_have_the_same_mark(small, tmp_path, quick):
    marks = []
    for kit in ("one", "other"):
        desk = Loopback(tmp_path / kit, "fedavg", small).desk("west")
        desk.secret = tmp_path / "secret"
        marks.append(desk.answer(Message("hello")).says["data"])
    assert marks[0] == marks[1]


def test_a_site_and_a_class_by_any_name_are_read(small, tmp_path, quick):
    """A wide space is no printable character to Python."""
    data = shutil.copytree(small, tmp_path / "data")
    (data / "west").rename(data / "東京\u3000病院")
    engine = Loopback(tmp_path, "fedavg", data)
    engine.run()
    assert not warnings(engine)
    task = make_task("segmentation", ("back", "脳\u3000腫", "瘍"))
    assert good_intervals({"dice_脳\u3000腫": [0.1, None]}, task)
    assert not good_intervals({"of_another": [0.1, None]}, task)


def test_an_order_for_another_place_is_refused(engine):
    orders = orders_to_west(engine)
    other = Message("visit", orders[0].says | {"number": 7}, orders[0].tensors)
    assert engine.desk("west").answer(other).kind == "refused"


@pytest.mark.parametrize(
    ("policy", "settings", "says"),
    [
        ({}, {"privacy.seeded": True}, "could be taken off again"),
        ({"privacy": "records"}, {}, "asks for privacy 'records'"),
        ({"min_noise": 2.0}, {}, "asks for a noise of 2 or more"),
        ({"max_epsilon": 15.45}, {}, "to cost epsilon 15.45 at delta 1e-05"),  # it is 15.456
        ({"max_epsilon": 15.46, "delta": 1e-6}, {}, "to cost epsilon 15.46 at delta 1e-06"),
        ({"max_epsilon": 15.46, "repeats": 1}, {}, "to cost epsilon 15.46"),
        ({"max_epsilon": 1e6}, {"noise": 0.0}, "to cost epsilon 1e+06"),
    ],
)
def test_a_site_has_a_word_on_noise(small, tmp_path, quick, policy, settings, says):
    engine = Loopback(tmp_path, "fedavg", small, **NOISED | settings)
    engine.policies["west"] = Policy(**policy)
    assert says in engine.desk("west").answer(Message("hello")).says["reason"]
    seeded = "privacy.seeded" in settings
    assert engine.desk("east").answer(Message("hello")).kind == ("refused" if seeded else "hello")


def test_a_run_within_a_sites_epsilon_is_taken(small, tmp_path, quick):
    engine = Loopback(tmp_path, "fedavg", small, **NOISED)  # two rounds of noise 1: 15.456
    engine.policies["west"] = Policy(max_epsilon=15.46)
    assert engine.desk("west").answer(Message("hello")).kind == "hello"


@pytest.mark.parametrize("odd", [{"delta": 1.0}, {"delta": 0.0}, {"max_epsilon": -1.0}])
def test_an_epsilon_that_would_let_all_pass_is_refused(odd):
    with pytest.raises(ValidationError):
        Policy(**odd)


def test_the_scores_after_the_last_round_are_no_round_of_training(small, tmp_path, quick):
    engine = Loopback(tmp_path, "fedavg", small)
    engine.policies["west"] = Policy(max_rounds=3)
    orders = orders_to_west(engine)
    desk = engine.desk("west")
    assert desk.memory.trained == [1, 2, 3]  # of two
    for number, kind in enumerate(["visit", "refused"]):
        other = Message("visit", orders[0].says | {"x": number}, orders[0].tensors)
        assert desk.answer(other).kind == kind


def test_a_run_stays_the_same_for_a_version_with_more_settings(small, tmp_path, quick):
    """A plan of before lacks what has a default now."""
    plan = Loopback(tmp_path, "fedavg", small).plan
    values = json.loads(json.dumps(plan.as_dict()))
    assert Plan.from_dict(values, ("tests.",)).fingerprint == plan.fingerprint
    del values["settings"]["schedule"]["max_batch"]
    before = Plan.from_dict(json.loads(json.dumps(values)), ("tests.",))
    assert before.settings.method.schedule.max_batch is None
    assert before.as_dict() == values
    again = Plan.from_dict(before.as_dict(), ("tests.",))
    assert again.fingerprint == before.fingerprint != plan.fingerprint


def test_only_a_runs_own_files_can_be_named():
    whole = "0" * 64
    for kind, name in (
        ("state", "site-0000-00001-state.safetensors"),
        ("candidate", "site-0000-00001-candidate.safetensors"),
        ("mean", "mean-00001.safetensors"),
    ):
        assert read_kept([name, whole], kind) == Kept(name, whole)
        for odd in (f"{name}/../../x", f"{name}x", f"x{name}", f"../{name}", name.upper()):
            with pytest.raises(PayloadError, match=f"no {kind} of a run"):
                read_kept([odd, whole], kind)
        with pytest.raises(PayloadError):
            read_kept([name, whole + "0"], kind)


@pytest.mark.parametrize("round", [0, -1, 4])
def test_a_round_that_the_run_does_not_have_is_not_worked(small, tmp_path, quick, round):
    """Each would count as another one, with noise of its own."""
    engine = Loopback(tmp_path, "fedavg", small, **NOISED)
    orders = orders_to_west(engine)
    desk = engine.desk("west")
    other = Message("visit", orders[0].says | {"round": round}, orders[0].tensors)
    assert desk.answer(other).says["reason"] == "the message is not as it should be"
    assert desk.memory.trained == [1, 2, 3]


def test_rounds_that_are_counted_are_not_counted_anew(small, tmp_path, quick):
    engine = Loopback(tmp_path, "fedavg", small)
    engine.policies["west"] = Policy(max_rounds=3)
    orders = orders_to_west(engine)
    desk = engine.desk("west")
    (desk.folder.state / "register.json").write_text("{")
    other = Message("visit", orders[0].says | {"x": 1}, orders[0].tensors)
    assert "is damaged or missing" in desk.answer(other).says["reason"]


def test_a_sites_policy_on_bytes_is_kept(small, tmp_path, quick):
    engine = Loopback(tmp_path, "fedavg", small)
    engine.policies["west"] = Policy(max_bytes=1)
    with pytest.raises(StateError, match="1 of 2 sites"):
        engine.run()
    assert any("lets 1 bytes leave at a time" in warning for warning in warnings(engine))


@pytest.mark.parametrize("method", ["fedavg", "fednova", "scaffold"])
def test_a_layer_that_never_leaves_does_not_under_another_name_either(
    small, tmp_path, quick, method
):
    engine = Loopback(tmp_path, method, small)
    engine.policies["west"] = Policy(forbid_names=("head.*",))
    with pytest.raises(StateError, match="1 of 2 sites"):
        engine.run()
    assert any("does not let" in warning for warning in warnings(engine))


def test_what_came_down_is_in_the_sites_record(engine):
    orders = orders_to_west(engine)
    record = read_record(engine.folder / "west")
    down = record[(record["direction"] == "down") & (record["kind"] == "visit")]
    came = [message for message in orders if message.tensors]
    assert came
    for message in came:
        rows = down[down["round"] == message.says["round"]].set_index("name")["sha256"]
        for tensor_name, tensor in message.tensors.items():
            assert rows[tensor_name] == sha256_of(tensor)


def test_what_a_killed_process_left_at_a_site_goes(engine):
    engine.run()
    left = engine.desk("west").folder.state / ".site-0000-00002-state.safetensors.123.part"
    left.write_bytes(b"half")
    engine.desk("west").answer(Message("hello"))
    assert left.exists()  # only at the start: later on it may be written
    engine.desks.clear()
    engine.desk("west").answer(Message("hello"))
    assert not left.exists()


def test_a_secret_that_is_there_is_only_read(engine, monkeypatch):
    engine.run()
    monkeypatch.setattr("counterpoint.remote.desk.write_secret", None)
    engine.desks.clear()
    assert engine.desk("west").answer(Message("hello")).kind == "hello"


def test_bytes_that_make_no_tensor_are_no_payload():
    """Sides whose product is 0, or too large for any memory."""
    for sides in ([0, 2**63], [0, 2**62, 2**62]):
        head = json.dumps({"w": {"dtype": "F32", "shape": sides, "data_offsets": [0, 0]}}).encode()
        with pytest.raises(PayloadError):
            from_bytes(len(head).to_bytes(8, "little") + head)


def test_no_checksum_that_leaves_tells_what_a_site_has(small, tmp_path, quick):
    """The same images and the same round: two sites' marks of them can't be compared."""

    def marks(folder):
        engine = Loopback(folder, "prrfl", small)
        told = []

        def change(site, message, reply):
            answer = reply()
            if site == "west" and answer.kind in ("hello", "visit"):
                told.append([answer.says.get(name) for name in ("data", "state", "candidate")])
            return answer

        engine.change = change
        engine.run()
        return [mark for says in told for mark in says if mark]

    one, other = marks(tmp_path / "one"), marks(tmp_path / "other")
    assert len(one) == len(other) == 5
    assert not any(a == b for a, b in zip(one, other, strict=True))


def test_what_a_site_keeps_is_for_its_owner_alone(engine):
    engine.run()
    storage = engine.folder / "west"
    assert storage.stat().st_mode & 0o077 == 0
    assert (storage / "secret").stat().st_mode & 0o077 == 0


def test_the_servers_own_file_is_read_strictly(tmp_path):
    file = tmp_path / "local" / "server.yaml"
    file.parent.mkdir()
    file.write_text("runs: runs\nimports: [mine.]\n")
    assert read_server_file(file).runs == tmp_path / "runs"
    for text, says in {
        "runs: runs\nimports: mine.": "imports",
        "runs: runs\nimport: [mine.]": "import",
        "imports: [mine.]": "it must name the folder",
    }.items():
        file.write_text(text)
        with pytest.raises(SettingsError, match=says):
            read_server_file(file)


def test_a_site_uses_its_cores(monkeypatch, tmp_path):
    """Its own word comes first, then the run's; a site is not left with one thread of many."""
    monkeypatch.setattr("counterpoint.remote.site_file.physical_cores", lambda: 16)
    for asked, own, used in ((None, None, 16), (2, None, 2), (None, 3, 3), (2, 3, 3)):
        options = {} if asked is None else {"threads": asked}
        plan = plan_without_data("run", "fedavg", "any", ["a", "b"], ["c", "d"], options)
        assert SiteFile(storage=tmp_path, threads=own).threads_for(plan) == used


@pytest.mark.parametrize("place", ["/data/Study #1", "yes", "a: b", "/daten/übung", "/data/plain"])
def test_a_settings_file_says_any_path(place, tmp_path):
    text = example("north", {"data": place, "root": place})
    assert yaml.safe_load(text)["data"] == yaml.safe_load(text)["root"] == place
    assert "data: /data/plain\n" in example("north", {"data": "/data/plain", "root": None})
