"""Patient identity, file names and images never leave a site: markers of them are looked for.

The sites read tables and images of their own. All that the server receives and writes is searched,
in a run without faults and with faults whose messages are full of markers.
"""

import base64
import io
import shutil
import zipfile

import pytest

from counterpoint import client as client_module
from counterpoint.errors import DataError, PayloadError, SettingsError, StateError
from counterpoint.remote import Desk, Message, Plan
from counterpoint.remote import desk as desk_module
from counterpoint.remote.site_file import read_site_file, settings_file, write_site_file
from tests.markers import FILE, PATIENT, WARD, damage, found, found_in, markers, plant
from tests.test_remote import Loopback, _one_thread, small, warnings  # noqa: F401  (fixtures)

PATH = f"/srv/{WARD}/{FILE}-03.png"


class Hospitals(Loopback):
    """A loopback whose sites have settings files, tables and images of their own."""

    def __init__(self, folder, method, data):
        super().__init__(folder, method, data, rounds=2)
        self.tables = plant(folder, self.sites)
        self.known = markers(self.tables.values())
        self.crossed = []
        for site, table in self.tables.items():
            own = {"storage": "storage", "data": str(table), "imports": ["tests."]}
            write_site_file(folder / site / "local" / settings_file(site), own)

    def desk(self, site):
        if site not in self.desks:
            own = read_site_file(self.folder / site / "local" / settings_file(site))
            plan = Plan.from_dict(self.plan.as_dict(), own.imports)
            self.desks[site] = Desk(
                plan,
                site,
                own.storage,
                bring=lambda plan: own.bring(plan, site),
                report=self.said.append,
            )
        return self.desks[site]

    def send(self, messages):
        replies = super().send(messages)
        self.crossed += [part for reply in replies.values() for part in reply.packed()]
        return replies

    def left(self):
        """Markers in what the server has received and written."""
        received = "".join(one for one in self.crossed if isinstance(one, str)).encode()
        tensors = b"".join(one for one in self.crossed if isinstance(one, bytes))
        at_server = found_in(self.known, self.folder / "server")
        return found(self.known, received) | found(self.known, tensors), at_server

    def at_site(self, site):
        """Markers in what the site has kept, and in what its own log was told."""
        kept = found_in(self.known, self.folder / site).values()
        told = " ".join(map(str, self.said)).encode()
        return set().union(*kept), found(self.known, told)


@pytest.fixture
def hospitals(request, small, tmp_path, quick, monkeypatch):  # noqa: F811
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "usual"))
    return Hospitals(tmp_path, getattr(request, "param", "fedavg"), small)


NOTHING = (set(), {})


@pytest.mark.parametrize("hospitals", ["prrfl", "fedavg"], indirect=True)
def test_a_run_lets_nothing_out(hospitals):
    hospitals.run()
    assert not warnings(hospitals)
    assert hospitals.left() == NOTHING
    decoded = hospitals.folder / "west" / "storage" / "cache"
    assert decoded.stat().st_mode & 0o077 == 0
    assert {"pixels", "file name"} <= set().union(*found_in(hospitals.known, decoded).values())
    assert not found_in(hospitals.known, hospitals.folder / "usual")  # of all that run here
    shutil.rmtree(decoded)
    kept, _ = hospitals.at_site("west")
    assert kept == {"folder"}  # the settings file; cases and patients are numbers even here


def test_an_image_that_can_not_be_read_in_mid_run(hospitals):
    def spoil(site, message, reply):
        if (site, message.says.get("round")) == ("west", 2):
            damage(hospitals.tables["west"])
            hospitals.desks.pop("west")  # its process begins anew
            return lambda: hospitals.desk("west").answer(message)
        return reply

    hospitals.change = spoil
    hospitals.run(min_sites=1)
    assert any(
        "round 2: site 'west' is left out: the site's data can't be used" in warning
        for warning in warnings(hospitals)
    )
    assert hospitals.left() == NOTHING
    assert "file name" in hospitals.at_site("west")[1]


ERRORS = [
    FileNotFoundError(2, "No such file", PATH),
    DataError(f"{PATH} of patient {PATIENT} can't be decoded"),
    SettingsError(PATH),
    StateError(PATH),
    PayloadError(PATH),
    RuntimeError(f"the transform has failed at {PATH}"),
    KeyError(PATIENT),
    UnicodeDecodeError("utf-8", PATH.encode(), 0, 1, PATH),
    MemoryError(PATH),
]
PLACES = {
    "a transform": (client_module, "batches"),
    "the test": (desk_module, "score_test"),
    "saving the model": (desk_module, "write_model"),
    "the message": (desk_module, "read_order"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_no_error_takes_anything_along(hospitals, monkeypatch, place, error):
    def fail(*given, **named):
        raise error

    hospitals.run()  # a chosen model, for all that can be asked
    state = hospitals.folder / "west" / "storage" / "run" / "state"
    candidate = sorted(state.glob("*-candidate.safetensors"))[-1]
    kept = [candidate.name, desk_module.hashlib.sha256(candidate.read_bytes()).hexdigest()]
    monkeypatch.setattr(*PLACES[place], fail)
    order = {"site": "west", "number": 1, "round": 3, "state": None, "mean": None}
    order |= {"keep_candidate": False, "chosen": None}
    asked = [Message("visit", order), Message("test", {"candidate": kept, "of": 1})]
    replies = [hospitals.send({"west": message})["west"] for message in asked]
    assert "refused" in {reply.kind for reply in replies}
    assert hospitals.left() == NOTHING
    assert hospitals.at_site("west")[1]  # the site's own log has it


@pytest.mark.parametrize("word", [PATIENT, FILE, WARD])
def test_what_is_looked_for_is_found_in_any_writing(tmp_path, word):
    known = markers([])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.txt", f"file {word}.png " * 9)
    for text in (f"x {word}", f"xy {word}", f"xyz {word}"):
        plain = text.encode()
        for data in (plain, text.encode("utf-16"), plain.hex().encode(), base64.b64encode(plain)):
            assert found(known, data), data
    assert found(known, packed.getvalue())
    (tmp_path / word).mkdir()
    (tmp_path / word / "empty").touch()
    assert found_in(known, tmp_path)
    assert not found(known, b"nothing of a patient")


def test_pixels_are_found_in_a_payload(hospitals):
    """A site that sends an image along is caught by what looks for images."""
    import torch

    def leak(site, message, reply):
        if (site, message.kind) != ("west", "visit"):
            return reply
        answer = reply()
        data, _ = hospitals.desk("west").data
        images = next(client_module.batches([data.sites[0].part("train")], 1, torch.device("cpu")))
        spoilt = dict(answer.tensors) | {"head.bias": images.images.flatten()}
        return Message(answer.kind, answer.says, spoilt)

    hospitals.change = leak
    hospitals.run(min_sites=1)
    received, _ = hospitals.left()
    assert received == {"pixels"}
