"""`counterpoint flare check` without a server of FLARE: what is wrong is named, with what to do."""

import json
import shutil
import socket
import ssl
import threading
from email.utils import formatdate
from time import time

import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: pip install .[flare]")

from counterpoint.data import write_phantom
from counterpoint.flare.check import check_kit
from counterpoint.flare.check_machine import room
from counterpoint.flare.poc import free_port
from counterpoint.flare.provision import make_kits
from counterpoint.flare.startup_kit import WrongError
from tests.running import call

CLASSES = "irregular,round,scalloped"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of kits, made once, whose port nobody listens on."""
    folder = tmp_path_factory.mktemp("check")
    data = write_phantom(folder / "data", size=32, scale=0.1)
    for site in ("east", "west", "south"):
        shutil.rmtree(data / site)
    command = ["flare", "init", "fedavg", data, "--sites", "north", "--classes", CLASSES]
    more = ["--image-size", 32, "--port", free_port(), "--out", folder / "together"]
    code, _, errors = call(*command, *more)
    assert code == 0, errors
    return make_kits(folder / "together")


@pytest.fixture
def kits(made, tmp_path):
    return shutil.copytree(made, tmp_path / "kits")


@pytest.fixture
def server(kits):
    """Return a function that answers calls as FLARE's server does, with its certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    startup = kits / "localhost" / "startup"
    context.load_cert_chain(startup / "server.crt", startup / "server.key")
    context.load_verify_locations(startup / "rootCA.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    says = json.loads((startup / "fed_server.json").read_text())
    port = says["servers"][0]["admin_port"]
    listener = socket.create_server(("127.0.0.1", port))

    def answer(behind):
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as line:
                    if line.recv(4096):
                        date = formatdate(time() + behind, usegmt=True)
                        line.sendall(f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\n\r\n".encode())
            except OSError:
                continue

    def start(behind=0):
        threading.Thread(target=answer, args=[behind], daemon=True).start()

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def found(kit):
    return {one.what: one for one in check_kit(kit)}


def wrong(kit):
    return {one.what for one in check_kit(kit) if one.ok is False}


def test_all_is_right(kits, server):
    server()
    code, out, errors = call("flare", "check", kits / "north", "--json")
    lines = json.loads(out)
    assert code == 0, errors
    assert [line["ok"] for line in lines] == [True] * 10
    assert "train" in lines[-1]["found"]
    (administrator,) = kits.glob("*@*")
    assert not wrong(administrator)


def test_no_server(kits):
    code, out, _ = call("flare", "check", kits / "north", "--json")
    lines = {line["what"]: line for line in json.loads(out)}
    assert code == 1
    assert lines["server's port"]["ok"] is False
    assert "started" in lines["server's port"]["todo"]
    assert lines["server's certificate"]["ok"] is lines["clock"]["ok"] is None
    assert not wrong(kits / "localhost")


def test_a_clock_that_is_wrong(kits, server):
    server(behind=-1000)
    one = found(kits / "north")["clock"]
    assert one.ok is False
    assert "s before the server's" in one.found


def test_kits_of_another_consortium(made, kits, server, tmp_path):
    server()
    shutil.copytree(made.parents[2], tmp_path / "other", ignore=shutil.ignore_patterns("kits"))
    strange = make_kits(tmp_path / "other") / "north"
    one = found(strange)["server's certificate"]
    assert one.ok is False
    assert "not that of the kit's consortium" in one.found
    shutil.copy(kits / "north" / "startup" / "rootCA.pem", strange / "startup")
    lines = found(strange)
    assert "this kit's certificate" in lines["server's certificate"].found
    assert "not signed by rootCA.pem" in lines["own certificate"].found


def replace(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_what_is_wrong_at_the_site_is_named(kits):
    kit = kits / "north"
    others = {"server's port"}
    assert wrong(kit) == others
    own, known = kit / "local/counterpoint-north.yaml", kit / "local/counterpoint-kit.json"
    replace(known, '"nvflare": "2.', '"nvflare": "1.')
    assert "1." in found(kit)["packages"].found
    (kit / "startup/client.key").chmod(0o644)
    assert "chmod 600" in found(kit)["own certificate"].todo
    replace(own, "storage: counterpoint", "storage: counterpoint\ndevice: abacus")
    assert wrong(kit) == {*others, "packages", "own certificate", "device"}
    replace(own, "device: abacus", "policy: {max_rounds: 1}")
    assert "allows 1 rounds" in found(kit)["settings file"].found
    replace(own, "{max_rounds: 1}", "{privacy: records}")
    assert "asks for privacy 'records'" in found(kit)["settings file"].found
    replace(own, "{privacy: records}", "{encrypted: true}")
    assert "only encrypted" in found(kit)["settings file"].found
    replace(own, "{encrypted: true}", "{max_epsilon: 8}")
    assert "to cost epsilon 8" in found(kit)["data"].found
    replace(known, "scalloped", "jagged")
    assert "jagged" in found(kit)["data"].found
    replace(own, "policy", "polcy")
    assert "polcy" in found(kit)["settings file"].found


def test_a_key_of_another_and_no_kit_at_all(kits, tmp_path):
    (administrator,) = kits.glob("*@*")
    shutil.copy(administrator / "startup/client.key", kits / "north/startup")
    assert "not the key" in found(kits / "north")["own certificate"].found
    shutil.copy(administrator / "startup/client.crt", kits / "north/startup")
    assert "not 'north'" in found(kits / "north")["own certificate"].found
    code, _, errors = call("flare", "check", tmp_path)
    assert code == 2
    assert "is no startup kit" in " ".join(errors.split())


def test_images_that_can_not_be_read_are_named(kits):
    own = kits / "north/local/counterpoint-north.yaml"
    line = next(one for one in own.read_text().splitlines() if one.startswith("data: "))
    data = shutil.copytree(line.removeprefix("data: "), kits.parent / "data")
    image = next((data / "north/images").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    replace(own, line, f"data: {data}")
    one = found(kits / "north")["data"]
    assert one.ok is False
    assert image.name in one.found


def test_no_room(tmp_path):
    with pytest.raises(WrongError, match="needed for a run"):
        room(tmp_path / "not" / "yet", 1 << 60)
