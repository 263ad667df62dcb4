"""Secure aggregation: the sum of what nobody but the sites can read is the mean of all."""

import json
import math
import os
import stat
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("tenseal", reason="TenSEAL is not installed: pip install .[encryption]")

import tenseal
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint import resume, run
from counterpoint.encryption import (
    EncryptedSum,
    Lock,
    head_of,
    make_key,
    mark_of,
    read_key,
    write_key,
)
from counterpoint.encryption.key import (
    GRID,
    LARGEST,
    PRIMES,
    RING,
    SCALE,
    SLOTS,
    server_context,
    site_context,
)
from counterpoint.encryption.sealed import MAGIC, Head, pack, unpack
from counterpoint.errors import EncryptionError, PayloadError, SettingsError, StateError
from counterpoint.files import read_tensors
from counterpoint.payload import from_bytes, to_bytes
from counterpoint.remote import Message
from counterpoint.remote.audit import read_record
from counterpoint.remote.desk import digest
from counterpoint.remote.policy import Policy
from counterpoint.server import WeightedMean
from counterpoint.settings import make_settings
from tests.running import call
from tests.test_remote import (  # noqa: F401  (fixtures)
    SETTINGS,
    Loopback,
    _one_thread,
    in_round,
    sites_by_round,
    small,
    spoilt,
    warnings,
)

KEY = make_key()
NEAR = 1e-6
"""Of the mean, for weights of 1 or more: a sum is off by half of 2**-20, and a little noise."""


def payload(seed, shapes=((2, 3), (), (5000,)), size=1.0):
    drawn = torch.Generator().manual_seed(seed)
    return {f"w{i}": size * torch.randn(shape, generator=drawn) for i, shape in enumerate(shapes)}


def added(payloads, weights, lock):
    """What comes down to a site, by way of bytes."""
    total = EncryptedSum()
    for number, (one, weight) in enumerate(zip(payloads, weights, strict=True)):
        total.add(f"site {number}", from_bytes(to_bytes(lock.seal(one, weight))), weight)
    return lock.unseal(from_bytes(to_bytes(total.result())))


# The mathematics


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(
        st.lists(st.integers(0, 9), max_size=3).map(tuple) | st.just((SLOTS,)), max_size=3
    ),
    weights=st.lists(st.floats(1, 300), min_size=1, max_size=5),
    size=st.floats(0, 100),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_sum_gives_the_plain_mean(shapes, weights, size, seed, dtype):
    payloads = [
        {n: t.to(dtype) for n, t in payload(seed + i, shapes, size).items()}
        for i in range(len(weights))
    ]
    plain = WeightedMean()
    for number, (one, weight) in enumerate(zip(payloads, weights, strict=True)):
        plain.add(f"site {number}", one, weight)
    mine, wanted = added(payloads, weights, Lock(KEY, len(weights))), plain.result()
    assert mine.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert mine[name].dtype == tensor.dtype
        assert mine[name].shape == tensor.shape
        torch.testing.assert_close(mine[name], tensor, rtol=1e-6, atol=NEAR)


def test_room_is_used_to_its_end_and_not_beyond():
    """Four sites at the limit add up to the largest sum there can be, and it is right."""
    lock = Lock(KEY, 4)
    most = {"w": torch.full((SLOTS + 1,), LARGEST / 4, dtype=torch.float64)}
    for sign in (1, -1):
        signed = {"w": sign * most["w"]}
        torch.testing.assert_close(added([signed] * 4, [1.0] * 4, lock)["w"], signed["w"])
    with pytest.raises(EncryptionError, match=r"'w' times .* weight 1 .* has room for 4.19e\+06"):
        lock.seal({"w": most["w"] * 1.01}, 1.0)
    with pytest.raises(EncryptionError, match=r"weight 2 .*weighting=equal"):
        lock.seal(most, 2.0)
    with pytest.raises(EncryptionError, match=r"weight 0.001 is too small .*weighting=equal"):
        lock.seal(most, 1e-3)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_leave(odd):
    with pytest.raises(EncryptionError, match="'w' has a number that is not finite"):
        Lock(KEY, 2).seal({"w": torch.tensor([1.0, odd])}, 1.0)


def test_the_same_numbers_never_look_the_same():
    lock, one = Lock(KEY, 2), payload(1)
    first, second = lock.seal(one, 1.0), lock.seal(one, 1.0)
    assert not any(torch.equal(first[name], second[name]) for name in one)


def test_the_noise_of_encryption_never_shows():
    """It would give the key away. It is there in what is decrypted, and gone from the mean."""
    lock, one = Lock(KEY, 2), {"zeros": torch.zeros(5000), **payload(1)}
    raw = tenseal.ckks_vector_from(site_context(KEY), unpack(lock.seal(one, 1.0)["zeros"])[1][0])
    noise = np.abs(raw.decrypt())
    assert 0 < noise.max() < 2.0**-GRID / 10
    first, second = (added([one, one], [1.0, 2.0], lock) for _ in range(2))
    assert not first["zeros"].any()
    steps = first["w2"].double() * 3 * 2**GRID
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=0.5)  # float32's own rounding
    assert (first["w2"] == second["w2"]).float().mean() > 0.8


# Who can read what


def test_the_server_can_add_and_not_decrypt():
    assert not server_context().is_private()
    assert not server_context().has_secret_key()
    total = EncryptedSum()
    total.add("A", Lock(KEY, 2).seal(payload(1), 1.0), 1.0)
    (vector, *_) = total._sum["w2"][1]
    with pytest.raises(ValueError, match="secret_key"):
        vector.decrypt()


def test_a_ciphertext_tells_nothing_to_another_key():
    sealed = Lock(KEY, 2).seal(payload(1), 1.0)
    other = make_key()
    with pytest.raises(EncryptionError, match=f"{mark_of(KEY)}.*{mark_of(other)}.*the same key"):
        Lock(other, 2).unseal(sealed)
    head, parts = unpack(sealed["w2"])
    forged = pack(Head(head.shape, head.dtype, 1.0, mark_of(other), head.lengths), parts)
    found = Lock(other, 2).unseal({"w": forged})["w"]  # numbers of no meaning
    assert abs(np.corrcoef(found, payload(1)["w2"])[0, 1]) < 0.1
    assert found.abs().median() > 1e3


def test_a_key_is_for_its_owner_alone_and_never_overwritten(tmp_path):
    umask = os.umask(0)
    try:
        file = write_key(tmp_path / "new" / "key", KEY)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_key(file) == KEY
    with pytest.raises(SettingsError, match="left as it is"):
        write_key(file, make_key())
    assert [one.name for one in file.parent.iterdir()] == ["key"]
    assert mark_of(read_key(file)) == mark_of(KEY)


def test_a_key_is_written_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    file = write_key(tmp_path / "key", KEY)
    assert read_key(file) == KEY
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match="left as it is"):
        write_key(file, make_key())
    assert read_key(file) == KEY
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def context(degree, primes, scale):
    made = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=degree,
        coeff_mod_bit_sizes=primes,
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    made.global_scale = 2**scale
    return made


def test_what_is_no_key_of_ours_is_refused_in_words(tmp_path):
    file = tmp_path / "key"
    with pytest.raises(EncryptionError, match="can't be read: No such file"):
        read_key(file)
    for data, words in (
        (b"", "holds none"),
        (KEY[:-9], "holds none"),
        (context(8192, [60, 40, 40], 40).serialize(save_secret_key=True), "other parameters"),
        (context(RING, list(PRIMES), 40).serialize(save_secret_key=True), "other parameters"),
        (context(RING, list(PRIMES), SCALE).serialize(save_secret_key=False), "the server's"),
    ):
        file.write_bytes(data)
        with pytest.raises(EncryptionError, match=words) as caught:
            read_key(file)
        assert str(tmp_path) not in str(caught.value)


def test_the_command_makes_a_key_once_and_shows_its_mark(tmp_path):
    file = tmp_path / "key"
    code, out, _ = call("key", file, "--json")
    made = json.loads(out)
    assert (code, made["mark"]) == (0, mark_of(read_key(file)))
    before = file.read_bytes()
    assert json.loads(call("key", file, "--json")[1]) == made
    assert file.read_bytes() == before
    file.write_bytes(b"no key")
    code, _, errors = call("key", file)
    assert code == 2
    assert "holds none" in " ".join(errors.split())


# What a server may be sent


def damaged(sealed, at):
    data = sealed.clone()
    data[at] ^= 0xFF
    return data


def with_head(sealed, **changes):
    head, parts = unpack(sealed)
    return pack(Head(**{**vars(head), **changes}), parts)


BAD = {
    "plain": (lambda one: torch.ones(3), "it is not encrypted"),
    "bytes of another kind": (lambda one: torch.zeros(300, dtype=torch.uint8), "not encrypted"),
    "cut off": (lambda one: one[:-1].clone(), "head does not fit"),
    "no head": (lambda one: damaged(one, 25), "head"),
    "a head as long as it likes": (lambda one: damaged(one, 23), "head is too long"),
    "a damaged ciphertext": (lambda one: damaged(one, slice(300, 400)), "can't be read"),
    "another weight": (lambda one: with_head(one, weight=9.0), "another weight"),
    "another shape": (lambda one: with_head(one, shape=(7,)), "too few or too many numbers"),
    "another key": (lambda one: with_head(one, key="0" * 16), "must have the same"),
    "another type": (lambda one: with_head(one, dtype="float64"), "float64, the sites before"),
    "a type that is none": (lambda one: with_head(one, dtype="Tensor"), "head does not fit"),
    "a side without end": (lambda one: with_head(one, shape=(math.inf,)), "head can't be read"),
    "a side beyond all": (lambda one: with_head(one, shape=(10**400,)), "head does not fit"),
    "a side below 0": (lambda one: with_head(one, shape=(-2, -3)), "head does not fit"),
    "other sides": (lambda one: with_head(one, shape=(3, 2)), r"the sites before it as \(2, 3\)"),
    "a weight that is none": (lambda one: with_head(one, weight=math.nan), "head does not fit"),
    "a weight without end": (lambda one: with_head(one, weight=math.inf), "head does not fit"),
    "no weight": (lambda one: with_head(one, weight=0.0), "head does not fit"),
    "more than its head says": (lambda one: torch.cat([one, one[:7]]), "head does not fit"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_payload_is_refused_and_leaves_the_sum_as_it_was(case):
    change, words = BAD[case]
    lock, shapes = Lock(KEY, 2), [(2, 3)]
    total = EncryptedSum()
    total.add("A", lock.seal(payload(1, shapes), 1.0), 1.0)
    bad = lock.seal(payload(2, shapes), 1.0)
    with pytest.raises(PayloadError, match=rf"'B'.*{words}"):
        total.add("B", {"w0": change(bad["w0"])}, 1.0)
    with pytest.raises(PayloadError, match="other names"):
        total.add("B", {"v": bad["w0"]}, 1.0)
    mean = lock.unseal(total.result())["w0"]
    torch.testing.assert_close(mean, payload(1, shapes)["w0"], rtol=0, atol=NEAR)


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(0, 90))
def test_bytes_of_any_kind_are_read_or_refused(data, length):
    text = MAGIC + length.to_bytes(4, "little") + data
    with pytest.raises(PayloadError):
        unpack(torch.frombuffer(bytearray(text), dtype=torch.uint8))


# Whole runs


def assert_near(one, other):
    """Two folders of runs have the same scores, but for rounding."""
    mine, wanted = (pd.read_csv(place / "scores.csv") for place in (one, other))
    pd.testing.assert_frame_equal(mine, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", ["fedavg", "prrfl", "harmofl"])
def test_a_run_across_sites_equals_the_plain_one(small, tmp_path, quick, method):  # noqa: F811
    plain, engine = Loopback(tmp_path / "plain", method, small), encrypted(tmp_path, method, small)
    plain.run()
    engine.run()
    assert not warnings(engine)
    assert_near(tmp_path / "server", tmp_path / "plain" / "server")
    for site in engine.sites:
        mine, wanted = (
            from_bytes((place / site / "run/models/personal" / f"{site}.safetensors").read_bytes())
            for place in (tmp_path, tmp_path / "plain")
        )
        for name, tensor in wanted.items():
            torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=1e-4)


def encrypted(folder, method, data, **more):
    engine = Loopback(folder, method, data, encrypt=True, **more)
    engine.keys = dict.fromkeys(engine.sites, write_key(folder / "key", KEY))
    return engine


@pytest.fixture
def engine(small, tmp_path, quick):  # noqa: F811
    return encrypted(tmp_path, "fedavg", small, rounds=2)


def test_nothing_at_the_server_can_be_read(engine):
    engine.run()
    server = engine.folder / "server"
    results = json.loads((server / "results.json").read_text())
    assert results["encryption"]["scheme"].startswith("CKKS")
    assert results["one_global_model"] is True
    assert not (server / "models").exists()  # it is made of a mean
    means = [from_bytes(file.read_bytes()) for file in (server / "state").glob("mean-*")]
    assert means
    assert all(head_of(tensor) for mean in means for tensor in mean.values())
    secret = KEY[100:200]
    assert not any(secret in file.read_bytes() for file in server.rglob("*") if file.is_file())
    record = read_record(engine.folder / "west")
    up = record[(record["direction"] == "up") & (record["kind"] == "visit")]
    up = up[up["name"] != "(text)"]
    assert len(up)
    for row in up.itertuples():
        assert row.bytes == int(row.shape) > 60_000  # a ciphertext has so many at least


def test_no_model_leaves_even_if_the_server_asks(engine):
    engine.run()
    for file in (engine.folder / "west" / "run" / "state").glob("*-candidate.safetensors"):
        asked = Message("model", {"candidate": [file.name, "0"], "model": ""})
        reply = engine.desk("west").answer(asked)
        assert (reply.kind, reply.tensors) == ("refused", {})
        assert "no model does" in reply.says["reason"]


def test_no_mark_tells_the_server_whether_a_guess_at_the_model_is_right(engine):
    marks = []

    def change(site, message, reply):
        answer = reply()
        if answer.kind == "test":
            marks.append(answer.says["model"])
        return answer

    engine.change = change
    engine.run()
    (file,) = (engine.folder / "west" / "run" / "models").rglob("*.safetensors")
    assert len(marks) == 2
    assert len(set(marks)) == 1
    assert None not in marks
    assert digest(read_tensors(file)) not in marks
    assert engine.desk("west").lock.sites == 2  # as many as may be in a sum


def test_sites_with_two_keys_do_not_begin(engine):
    other = make_key()
    engine.keys["west"] = write_key(engine.folder / "other", other)
    with pytest.raises(EncryptionError) as caught:
        engine.run()
    assert f"west: {mark_of(other)}" in str(caught.value)
    assert f"east: {mark_of(KEY)}" in str(caught.value)
    assert not engine.desk("west").folder.state.joinpath("answer").exists()


@pytest.mark.parametrize("file", [None, "nowhere"])
def test_a_site_without_a_key_says_so_and_no_more(engine, file):
    engine.keys["west"] = file and engine.folder / file
    with pytest.raises(StateError, match="1 of 2 sites"):
        engine.run()
    (warning,) = (w for w in warnings(engine) if w.startswith("at the start"))
    assert "key" in warning
    assert str(engine.folder) not in warning


def test_another_key_in_mid_run_is_named(engine):
    engine.change = lambda site, message, reply: None if message.says.get("round") == 2 else reply
    with pytest.raises(StateError):
        engine.run()
    engine.change = lambda site, message, reply: reply
    engine.desks.clear()
    engine.keys = dict.fromkeys(engine.sites, write_key(engine.folder / "later", make_key()))
    with pytest.raises(StateError, match="0 of 2 sites"):
        engine.run()
    assert any("all sites must have the same key, from beginning" in w for w in warnings(engine))


def test_a_server_that_was_stopped_goes_on_from_its_ciphertexts(engine, small, tmp_path):  # noqa: F811
    never = Loopback(tmp_path / "plain", "fedavg", small, rounds=2)
    never.run()
    in_round(engine, 2, "west", lambda reply: None)
    with pytest.raises(StateError, match="1 of 2"):
        engine.run()
    engine.change = lambda site, message, reply: reply
    engine.desks.clear()
    engine.run()
    assert_near(tmp_path / "server", tmp_path / "plain" / "server")


def test_a_site_that_sends_no_ciphertext_is_left_out(small, tmp_path, quick):  # noqa: F811
    engine = encrypted(tmp_path, "fedavg", write_three(small, tmp_path), rounds=2)
    in_round(engine, 2, "west", spoilt("head.bias", torch.zeros(3)))
    engine.run(min_sites=2)
    (warning,) = warnings(engine)
    assert "round 2: site 'west' is left out" in warning
    assert sites_by_round(engine)[2] == ["east", "north"]


def write_three(folder, tmp_path):
    """The data of `small` with a third site: one of the two once more, with a patient changed."""
    import shutil

    from counterpoint.data import write_phantom

    there = write_phantom(tmp_path / "three", size=32, scale=0.1)
    shutil.rmtree(there / "south")
    return there


def test_with_a_sum_of_one_a_run_does_not_begin(engine):
    with pytest.raises(SettingsError, match="2 sites or more"):
        engine.run(min_sites=1)


def test_a_sites_policy_can_ask_for_encryption(small, tmp_path, quick):  # noqa: F811
    strict = Policy(encrypted=True)
    for name, make in (("plain", Loopback), ("encrypted", encrypted)):
        engine = make(tmp_path / name, "fedavg", small, rounds=1)
        engine.policies["west"] = strict
        if name == "plain":
            with pytest.raises(StateError):
                engine.run()
            assert any("leave only encrypted" in warning for warning in warnings(engine))
        else:
            engine.run()
            assert not warnings(engine)


def test_a_run_on_one_machine_encrypts_by_the_same_code(small, tmp_path, quick):  # noqa: F811
    for name, more in (("plain", {}), ("encrypted", {"encrypt": True})):
        run("prrfl", str(small), out=tmp_path / name, settings=SETTINGS | more)
    assert_near(tmp_path / "encrypted", tmp_path / "plain")
    key = tmp_path / "encrypted" / "state" / "encryption.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    code, out, _ = call("show", tmp_path / "encrypted")
    assert code == 0
    assert "encrypted (CKKS" in " ".join(out.split())
    code, *_ = call("report", tmp_path / "encrypted", "--out", tmp_path / "page.html")
    assert code == 0
    assert "what crossed was encrypted" in (tmp_path / "page.html").read_text()


def test_a_run_on_one_machine_with_a_sum_of_one_is_refused(tmp_path):
    settings = SETTINGS | {"encrypt": True, "participation": 0.25}
    with pytest.raises(SettingsError, match="2 sites or more"):
        run("fedavg", "phantom", out=tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_a_run_on_one_machine_goes_on_with_its_key(small, tmp_path, quick, monkeypatch):  # noqa: F811
    settings = SETTINGS | {"encrypt": True}
    run("fedavg", str(small), out=tmp_path / "never", settings=settings)

    class StopError(Exception):
        pass

    def stop(event):
        if event.get("round") == 2 and event.get("moment") == "epoch":
            raise StopError

    with pytest.raises(StopError):
        run("fedavg", str(small), out=tmp_path / "run", settings=settings, report=stop)
    resume(tmp_path / "run")
    assert_near(tmp_path / "run", tmp_path / "never")


@pytest.mark.parametrize(
    ("method", "more", "words"),
    [
        ("fedadam", {}, "--server mean"),
        ("fednova", {}, "server 'normalised' computes with the mean"),
        ("scaffold", {}, "server 'control' computes"),
        ("local", {}, "lets nothing leave"),
        ("pooled", {}, "lets nothing leave"),
    ],
)
def test_what_needs_the_mean_at_the_server_is_refused(method, more, words):
    with pytest.raises(SettingsError, match=words):
        make_settings(method, "phantom", {"encrypt": True, **more})
    make_settings(method, "phantom", more)


def test_noise_at_the_site_goes_with_it():
    more = {"encrypt": True, "privacy": "payload", "statistics": "group"}
    assert make_settings("fedavg", "phantom", more).encrypt


def test_without_tenseal_a_run_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tenseal", None)
    with pytest.raises(SettingsError, match=r"pip install 'counterpoint\[encryption\]'"):
        make_settings("fedavg", "phantom", {"encrypt": True})


@pytest.mark.parametrize("place", [0, 1])
def test_a_ciphertext_of_another_scale_is_refused_before_it_is_added(place):
    """Whichever site it comes from, the sum of the others is left as it was."""

    def sealed(scale):
        payload = Lock(KEY, 2).seal({"w": torch.ones(3)}, 1.0)
        head, _ = unpack(payload["w"])
        other = tenseal.ckks_vector(site_context(KEY), [1.0, 1.0, 1.0], scale=scale).serialize()
        return {"w": pack(replace(head, lengths=(len(other),)), [other])}

    total = EncryptedSum()
    for number in range(2):
        if number == place:
            with pytest.raises(PayloadError, match="with other parameters"):
                total.add("west", sealed(2**20), 1.0)
        else:
            total.add("east", sealed(2**34), 1.0)
    mean = Lock(KEY, 2).unseal(total.result())
    assert torch.allclose(mean["w"], torch.ones(3), atol=1e-5)
