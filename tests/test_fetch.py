"""Fetching, against a small server of our own: no test goes into the network."""

import gzip
import hashlib
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from counterpoint.data import transfer
from counterpoint.data.dataset import Request
from counterpoint.data.downloads import DOWNLOADS, File
from counterpoint.data.fetch import fetch, licence_of
from counterpoint.data.sets import datasets
from counterpoint.data.unpack import ArchiveError, is_archive, unpack
from counterpoint.errors import CounterpointError, DataError, SettingsError

NOISE = os.urandom(300_000)  # does not get smaller in an archive


@dataclass
class Content:
    """What the server has at one address, and how it misbehaves."""

    data: bytes
    tag: str = '"one"'
    date: str = ""
    ranges: bool = True
    honours_if_range: bool = True
    kind: str = "application/zip"
    length: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which an answer is cut off
    statuses: list[int] = field(default_factory=list)  # what it answers before it behaves
    pause: float = 0.0  # seconds after every 16 kB
    silence: float = 0.0  # seconds before an answer is cut off


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.contents.get(self.path.lstrip("/"))
        if content is None:
            return self.send_error(404)
        if content.statuses:
            return self.send_error(content.statuses.pop(0))
        start, status = 0, 200
        condition = self.headers.get("If-Range")
        same = condition in (content.tag, content.date) or not content.honours_if_range
        if content.ranges and "Range" in self.headers and same:
            start, status = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1]), 206
        size = len(content.data)
        if start >= size > 0 and status == 206:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if content.length:
            self.send_header("Content-Length", str(size - start))
        self.send_header("Content-Type", content.kind)
        if content.tag:
            self.send_header("ETag", content.tag)
        if content.date:
            self.send_header("Last-Modified", content.date)
        self.end_headers()
        end = start + content.cuts.pop(0) if content.cuts else size
        for place in range(start, min(end, size), 16_384):
            self.wfile.write(content.data[place : min(place + 16_384, end)])
            self.wfile.flush()
            time.sleep(content.pause)
        time.sleep(content.silence if end < size else 0.0)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a client that was killed

    server = Server(("127.0.0.1", 0), Handler)
    server.contents, server.asked = {}, []
    server.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "WAITS", (0.0, 0.01, 0.01))


def zipped(files):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return raw.getvalue()


def tarred(files, mode="w", kind=tarfile.REGTYPE, link=""):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, link
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


HRF = zipped({"images/a": b"image", "mask/a": NOISE})


@pytest.fixture
def hrf(server):
    server.contents["all.zip"] = Content(HRF)
    return server.contents["all.zip"]


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def get(server, root, name="hrf", **options):
    return fetch(name, root, accept=True, base=server.base, **options)


WHOLE = {"images/a": b"image", "mask/a": NOISE}


def test_a_set_is_put_in_place_and_noted(server, hrf, tmp_path):
    seen, said = [], []
    root = tmp_path / "data"
    place = get(server, root, progress=lambda *what: seen.append(what), say=said.append)
    assert place == root / "HRF"
    assert tree(place) == WHOLE
    size = len(HRF)
    came = [done for what, done, total in seen if what == "all.zip" and total == size]
    assert came[0] == 0
    assert came == sorted(came)
    assert came[-1] == size
    assert seen[-1][0] == "unpacking all.zip"
    note = json.loads((root / "fetched.json").read_text())["hrf"]
    assert note["folder"] == "HRF"
    assert "CC BY 4.0" in note["licence"]
    assert note["files"]["all.zip"] == {
        "url": f"{server.base}/all.zip",
        "bytes": size,
        "sha256": hashlib.sha256(HRF).hexdigest(),
        "checked": "first download",
    }
    assert "no checksum is known" in said[0]
    assert {p.name for p in root.iterdir()} == {"HRF", "fetched.json"}


def test_the_second_call_does_nothing(server, hrf, tmp_path):
    get(server, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    server.asked.clear()
    assert get(server, tmp_path) == tmp_path / "HRF"
    assert server.asked == []
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_the_licence_comes_first(server, hrf, tmp_path):
    with pytest.raises(
        SettingsError,
        match=r"(?s)once its licence is accepted, by --accept-licence.*CC BY 4.0.*Budai",
    ):
        fetch("hrf", tmp_path, accept=False, base=server.base)
    assert server.asked == []
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_and_sets_by_hand(tmp_path):
    with pytest.raises(SettingsError, match="did you mean 'monuseg'"):
        fetch("monuseq", tmp_path, accept=True)
    with pytest.raises(SettingsError, match=r"(?s)BIDMC.*https://liuquande.github.io/SAML/"):
        fetch("prostate", tmp_path, accept=True)
    with pytest.raises(SettingsError, match="must begin with http"):
        fetch("hrf", tmp_path, accept=True, base="ftp://x")


def test_the_register():
    for name, one in DOWNLOADS.items():
        assert name == one.name
        assert bool(one.files) != bool(one.by_hand)
        assert all(word in licence_of(name) for word in (one.licence, one.cite, one.page))
        assert len({file.name for file in one.files}) == len(one.files)
        for file in one.files:
            assert file.url.startswith("https://")
            assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum)
            assert is_archive(file.name) or file.name.endswith(".csv")
    assert {name for name, one in datasets().items() if one.needs_root} <= DOWNLOADS.keys()


def test_what_is_fetched_is_what_the_readers_look_for(server, tmp_path, monkeypatch):
    packed = gzip.compress(b"P6")  # readers go by names
    stare = [replace(file, checksum="") for file in DOWNLOADS["stare"].files]
    known_as(monkeypatch, "stare", images=stare[0], labels=stare[1])
    known_as(monkeypatch, "tnbc", a=replace(DOWNLOADS["tnbc"].files[0], checksum=""))
    patch = "patches/patient_004_node_4/patch_patient_004_node_4_x_1_y_2.png"
    metadata = b"patient,node,x_coord,y_coord,tumor,center\n004,4,1,2,1,3\n"
    server.contents |= {
        "all.zip": Content(
            zipped({"images/01_h.jpg": b"", "manual1/01_h.tif": b"", "mask/01_h_mask.tif": b""})
        ),
        "CHASEDB1.zip": Content(zipped({"Image_01L.jpg": b"", "Image_01L_1stHO.png": b""})),
        "stare-images.tar": Content(tarred({"im0001.ppm.gz": packed})),
        "labels-ah.tar": Content(tarred({"im0001.ah.ppm.gz": packed})),
        "TNBC_NucleiSegmentation.zip": Content(
            zipped({f"TNBC_NucleiSegmentation/{n}_01/01_1.png": b"" for n in ("Slide", "GT")})
        ),
        "camelyon17_v1.0.tar.gz": Content(tarred({"metadata.csv": metadata, patch: b""}, "w:gz")),
    }
    found = {}
    for name in ("hrf", "chase-db1", "stare", "tnbc", "camelyon17"):
        root = tmp_path / {"tnbc": "nuclei", "camelyon17": "camelyon17"}.get(name, "retina")
        get(server, root, name)
        data = datasets()[root.name]
        request = Request(root, data.protocols[0], data.tasks[0], tmp_path / "cache")
        found[root.name] = data.read(request).tables
    assert {data: set(tables) for data, tables in found.items()} == {
        "retina": {"HRF", "CHASE_DB1", "STARE"},
        "nuclei": {"TNBC"},
        "camelyon17": {"hospital 3"},
    }
    for tables in found.values():
        for table in tables.values():
            paths = [p for c in ("image", "mask", "fov") if c in table for p in table[c] if p]
            assert paths
            assert all(os.path.isfile(path) for path in paths)


def test_many_files_and_those_within_them(server, tmp_path):
    table = b"image_id,dx\n"
    part = "HAM10000_images_part_{}.zip"
    server.contents |= {
        "HAM10000_metadata.csv": Content(table, kind="text/csv"),
        "HAM10000_segmentations_lesion_tschandl.zip": Content(
            zipped({"lesions/1": b"m", "__MACOSX/lesions/1": b"x", "lesions/._1": b"x"})
        ),
        part.format(1): Content(zipped({"ISIC_1": b"1"})),
        part.format(2): Content(zipped({"ISIC_2": b"2"})),
    }
    place = get(server, tmp_path, "ham10000")
    assert tree(place) == {
        "HAM10000_metadata.csv": table,
        "masks/1": b"m",
        "images/ISIC_1": b"1",
        "images/ISIC_2": b"2",
    }


def known_as(monkeypatch, name, **files):
    """Give a registered set other files: as they come, with the checksums of what they hold."""
    changed = replace(DOWNLOADS[name], files=tuple(files.values()))
    monkeypatch.setitem(DOWNLOADS, name, changed)


def test_members_that_are_packed_again(server, tmp_path, monkeypatch):
    images = tarred({"im1.ppm.gz": gzip.compress(b"P6"), "im2.ppm.gz": gzip.compress(b"P7")})
    checksum = f"sha256:{hashlib.sha256(images).hexdigest()}"
    file = replace(DOWNLOADS["stare"].files[0], checksum=checksum)
    known_as(monkeypatch, "stare", one=file)
    server.contents["stare-images.tar"] = Content(images)
    said = []
    place = get(server, tmp_path, "stare", say=said.append) / "stare-images"
    assert tree(place) == {"im1.ppm": b"P6", "im2.ppm": b"P7"}
    assert said == []
    note = json.loads((tmp_path / "fetched.json").read_text())["stare"]
    assert note["files"]["stare-images.tar"]["checked"] == "published"


def test_a_wrong_checksum(server, tmp_path, monkeypatch):
    server.contents["TNBC_NucleiSegmentation.zip"] = Content(HRF)
    with pytest.raises(DataError, match=r"(?s)TNBC_Nuc.*not the one that its publisher.*removed"):
        get(server, tmp_path, "tnbc")
    assert tree(tmp_path) == {}
    md5 = hashlib.md5(HRF).hexdigest()
    known_as(monkeypatch, "tnbc", a=replace(DOWNLOADS["tnbc"].files[0], checksum=f"md5:{md5}"))
    assert tree(get(server, tmp_path, "tnbc")) == WHOLE


def test_another_file_than_the_first_time(server, hrf, tmp_path):
    place = get(server, tmp_path)
    place.rename(tmp_path / "moved")
    hrf.data = zipped({"images/a": b"other"})
    with pytest.raises(DataError, match=r"came the first time .*fetched.json"):
        get(server, tmp_path)
    assert not place.exists()
    hrf.data = HRF
    assert tree(get(server, tmp_path)) == WHOLE


def test_a_cut_download_goes_on(server, hrf, tmp_path):
    hrf.cuts = [100_000, 0, 50_000]
    assert tree(get(server, tmp_path)) == WHOLE
    assert [span for _, span in server.asked] == [
        None, "bytes=100000-", "bytes=100000-", "bytes=150000-"
    ]  # fmt: skip


def test_a_cut_download_goes_on_in_the_next_call(server, hrf, tmp_path):
    hrf.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DataError, match=r"all.zip: the connection was cut .*4 times.*goes on"):
        get(server, tmp_path)
    assert not (tmp_path / "HRF").exists()
    server.asked.clear()
    assert tree(get(server, tmp_path)) == WHOLE
    assert server.asked == [("/all.zip", "bytes=100000-")]


def test_goes_on_by_date_where_the_tag_is_weak(server, hrf, tmp_path):
    hrf.tag, hrf.date = 'W/"one"', "Tue, 14 Nov 2023 10:00:00 GMT"
    hrf.cuts = [100_000]
    assert tree(get(server, tmp_path)) == WHOLE
    assert server.asked[-1][1] == "bytes=100000-"


@pytest.mark.parametrize("kind", ["no ranges", "no validator"])
def test_comes_anew_where_it_can_not_go_on(server, hrf, tmp_path, kind):
    hrf.ranges = kind != "no ranges"
    hrf.tag = "" if kind == "no validator" else hrf.tag
    hrf.cuts = [100_000]
    assert tree(get(server, tmp_path)) == WHOLE
    asked = [span for _, span in server.asked]
    assert asked == [None, "bytes=100000-" if kind == "no ranges" else None]


def test_a_server_that_never_gives_all_of_it(server, hrf, tmp_path):
    hrf.ranges = False
    hrf.cuts = [100_000] * 10
    with pytest.raises(DataError, match=r"cut after 100000 of|connection was cut"):
        get(server, tmp_path)
    assert len(server.asked) == 4  # once, and once more for each wait


@pytest.mark.parametrize("honours", [True, False])
def test_a_file_that_changes_in_between(server, hrf, tmp_path, honours):
    hrf.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DataError, match="cut"):
        get(server, tmp_path)
    other = zipped({"images/a": b"other", "mask/a": NOISE[::-1]})
    hrf.data, hrf.tag, hrf.honours_if_range = other, '"two"', honours
    assert tree(get(server, tmp_path)) == {"images/a": b"other", "mask/a": NOISE[::-1]}


def test_all_had_come_already(server, hrf, tmp_path):
    work = tmp_path / ".fetching" / "hrf"
    work.mkdir(parents=True)
    (work / "all.zip.part").write_bytes(HRF)
    stamp = {"url": f"{server.base}/all.zip", "validator": hrf.tag}
    (work / "all.zip.part.json").write_text(json.dumps(stamp))
    (work / "tmpabc").write_bytes(HRF)  # of a process that was killed as it checked the file
    assert tree(get(server, tmp_path)) == WHOLE
    assert len(server.asked) == 1
    assert not work.exists()


def test_of_unknown_length(server, hrf, tmp_path):
    hrf.length = False
    seen = []
    assert tree(get(server, tmp_path, progress=lambda *what: seen.append(what))) == WHOLE
    assert ("all.zip", len(HRF), None) in seen


def test_errors_of_the_server(server, hrf, tmp_path):
    hrf.statuses = [503, 429]
    get(server, tmp_path / "passing")
    hrf.statuses = [503] * 9
    with pytest.raises(DataError, match=r"/all.zip: the server answered 503 .*4 times"):
        get(server, tmp_path / "lasting")
    hrf.statuses = [403]
    with pytest.raises(DataError, match=r"/all.zip: the server answered 403 Forbidden; look"):
        get(server, tmp_path / "forbidden")
    hrf.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match=r"/all.zip gives a web page"):
        get(server, tmp_path / "log-in")
    server.contents.clear()
    with pytest.raises(DataError, match=r"http://127.*/all.zip: the server answered 404"):
        get(server, tmp_path / "gone")
    assert list((tmp_path / "gone").iterdir()) == []


def test_no_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(DataError, match=r"no connection to 127.*refused\); check the network"):
        fetch("hrf", tmp_path, accept=True, base=base)


def test_a_server_that_falls_silent(server, hrf, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_TIMEOUT", (5.0, 0.2))
    hrf.cuts, hrf.silence = [100_000], 0.6
    assert tree(get(server, tmp_path)) == WHOLE
    assert [span is None for _, span in server.asked] == [True, False]


def test_a_folder_that_is_not_ours(server, hrf, tmp_path):
    (tmp_path / "HRF").mkdir()
    (tmp_path / "HRF" / "mine").write_bytes(b"")
    with pytest.raises(DataError, match="HRF is there already and was not put there by fetch"):
        get(server, tmp_path)
    assert tree(tmp_path) == {"HRF/mine": b""}


def test_a_record_that_is_broken(server, hrf, tmp_path):
    (tmp_path / "fetched.json").write_text("{")
    with pytest.raises(DataError, match=r"fetched.json can't be read"):
        get(server, tmp_path)


BAD = {
    "../../evil.zip": zipped({"ok": b"", "../../evil": b"x"}),
    "absolute.zip": zipped({"/counterpoint-evil": b"x"}),
    "backslash.zip": zipped({"..\\evil": b"x"}),
    "traversal.tar": tarred({"ok": b"", "a/../../../evil": b"x"}),
    "absolute.tar": tarred({"/counterpoint-evil": b"x"}),
    "symlink.tar": tarred({"a": b""}, kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "inner.tar": tarred({"a": b""}, kind=tarfile.SYMTYPE, link="b"),
    "hardlink.tar": tarred({"a": b""}, kind=tarfile.LNKTYPE, link="../../fetched.json"),
    "device.tar": tarred({"a": b""}, kind=tarfile.FIFOTYPE),
    "truncated.tar": tarred({"a": NOISE})[:-100_000],
    "truncated.tar.gz": tarred({"a": NOISE}, "w:gz")[:-100_000],
    "bytes.zip": HRF.replace(NOISE[5000:5010], b"0123456789"),
    "page_of_no_files.zip": zipped({}),
    "page.zip": b"<html>log in</html>",
    "page.tar": b"<html>log in</html>" * 100,
}
link = zipfile.ZipInfo("a")
link.external_attr = 0o120777 << 16
with zipfile.ZipFile(raw := io.BytesIO(), "w") as archive:
    archive.writestr(link, "/etc/passwd")
BAD["symlink.zip"] = raw.getvalue()


@pytest.mark.parametrize("name", BAD)
def test_archives_not_to_be_trusted(server, tmp_path, monkeypatch, name):
    file = os.path.basename(name)
    known_as(monkeypatch, "hrf", a=File(file, f"https://x/{file}"))
    server.contents[file] = Content(BAD[name])
    damaged = file.startswith(("truncated", "bytes", "page"))
    words = f"{file} is damaged" if damaged else f"{file} is not to be trusted: its member"
    root = tmp_path / "deep" / "root"
    with pytest.raises(DataError, match=words):
        get(server, root)
    assert not (root / "HRF").exists()
    assert not (root / "fetched.json").exists()
    assert not list(tmp_path.rglob("*evil*"))
    assert not os.path.lexists("/counterpoint-evil")
    assert not list(root.rglob(file))
    server.contents[file] = Content(HRF if file.endswith("zip") else tarred({"images/a": b"image"}))
    if not file.endswith(".gz"):
        assert "a" in str(sorted(tree(get(server, root))))


def test_what_unpacking_leaves(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(tarred({"./a/b": b"1", "c": b"", "._c": b"", "a/.DS_Store": b""}, "w:gz"))
    unpack(path, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a/b": b"1", "c": b""}


def script(tmp_path, server, before=""):
    """Write a program that fetches; it prints the words of an error."""
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(f"""
        from counterpoint.data import transfer
        from counterpoint.data.fetch import fetch
        from counterpoint.errors import DataError
        transfer.WAITS = (0.0,)
        {before}
        try:
            fetch("hrf", {str(tmp_path / "root")!r}, accept=True, base={server.base!r})
        except DataError as error:
            print("error:", error)
        """)
    )
    return [sys.executable, str(path)]


def test_a_killed_process_leaves_a_part_to_go_on_from(server, hrf, tmp_path):
    hrf.pause = 0.05
    process = subprocess.Popen(script(tmp_path, server))
    part = tmp_path / "root" / ".fetching" / "hrf" / "all.zip.part"
    until = time.monotonic() + 15
    while not (part.exists() and part.stat().st_size > 50_000) and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(DataError, match="another process is fetching into"):
        get(server, tmp_path / "root")
    process.send_signal(signal.SIGKILL)
    process.wait()
    have = part.stat().st_size
    assert 50_000 < have < len(HRF)
    assert not (tmp_path / "root" / "HRF").exists()
    hrf.pause = 0.0
    assert tree(get(server, tmp_path / "root")) == WHOLE
    assert server.asked[-1] == ("/all.zip", f"bytes={have}-")
    assert {p.name for p in (tmp_path / "root").iterdir()} == {"HRF", "fetched.json"}


def test_a_full_disk(server, hrf, tmp_path):
    def words(limit):
        full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
        done = subprocess.run(
            script(tmp_path, server, full), capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        return done.stdout

    root = tmp_path / "root"
    assert re.match(r"error: the disk is full: .*all.zip.part can't be written", words(100_000))
    assert not (root / "HRF").exists()
    server.asked.clear()
    assert tree(get(server, root)) == WHOLE
    assert server.asked == [("/all.zip", "bytes=100000-")]

    (root / "HRF").rename(root / "before")
    (root / "fetched.json").unlink()
    with zipfile.ZipFile(raw := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a", bytes(1_000_000))
    hrf.data, hrf.tag = raw.getvalue(), '"small"'
    assert re.match(r"error: the disk is full: .*/images/a can't be written", words(100_000))
    assert not (root / "HRF").exists()
    server.asked.clear()
    assert tree(get(server, root)) == {"a": bytes(1_000_000)}
    assert server.asked == []


def test_a_folder_that_can_not_be_written(server, hrf, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CounterpointError, match=r"file/root.* can't be written"):
        get(server, tmp_path / "file" / "root")


def test_every_damaged_byte_of_a_tar_is_found(tmp_path):
    """Its end and its checksum are looked at, too."""
    images = {f"images/{n}": random.Random(n).randbytes(2000) for n in range(12)}
    whole = gzip.compress(tarred(images), mtime=0)
    path = tmp_path / "set.tar.gz"
    path.write_bytes(whole)
    unpack(path, tmp_path / "whole")
    assert len(tree(tmp_path / "whole")) == 12
    for place in range(40, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[place] ^= 8
        path.write_bytes(damaged)
        with pytest.raises(ArchiveError, match="is damaged"):
            unpack(path, tmp_path / f"at {place}")


def test_a_tar_that_stops_at_a_damaged_header(tmp_path):
    path = tmp_path / "set.tar"
    plain = bytearray(tarred({"a": b"1" * 600, "b": b"2" * 600}))
    plain[1536 + 3] ^= 1  # in the second member's header
    path.write_bytes(plain)
    with pytest.raises(ArchiveError, match="header is damaged"):
        unpack(path, tmp_path / "a")
    path.write_bytes(tarred({"a": b"1" * 600})[:1536])
    with pytest.raises(ArchiveError, match="header is damaged or missing"):
        unpack(path, tmp_path / "b")


def test_what_does_not_fit_on_the_disk_is_not_begun(tmp_path, monkeypatch):
    path = tmp_path / "set.zip"
    path.write_bytes(zipped({"a": b"1" * 4000}))
    monkeypatch.setattr("counterpoint.data.unpack.disk_usage", lambda of: SimpleNamespace(free=10))
    with pytest.raises(DataError, match=r"unpacks to 0\.0 GB, and 0\.0 GB are free"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failed_unpacking_leaves_only_the_download(server, hrf, tmp_path, monkeypatch):
    def full(path, folder, *args, **options):
        (folder / "images").mkdir(parents=True)
        raise DataError("the disk is full")

    monkeypatch.setattr("counterpoint.data.fetch.unpack", full)
    with pytest.raises(DataError, match="full"):
        get(server, tmp_path)
    left = [path.name for path in (tmp_path / ".fetching" / "hrf").iterdir()]
    assert left
    assert not {"archive", "unpacked"} & {*left}


def test_a_password_is_not_noted(tmp_path):
    with pytest.raises(SettingsError, match=r"of mirror.org has a name or password .*netrc"):
        fetch("hrf", tmp_path, accept=True, base="https://jane:secret@mirror.org/sets")
