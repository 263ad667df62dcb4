"""What must never leave a site, planted where a site has it: in names, tables and pixels."""

import base64
import csv
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from tests.running import Wide

PATIENT, FILE, WARD = "MRN-48151623", "jane-doe-7f3a", "ward-9b1c42"
CLASSES = ["irregular", "round", "scalloped"]
SIZE = 32
WORDS = {"patient": PATIENT, "file name": FILE, "folder": WARD}

TOLD = f"/srv/{WARD}/{FILE}-03.png of patient {PATIENT} can't be turned"


class Fails(Wide):
    """A network whose training fails, with an error that names an image and a patient."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError(TOLD)
        return super().forward(images)


def plant(folder: Path, sites: Iterable[str]) -> dict[str, Path]:
    """Write each site a folder with images and a table, which are full of markers."""
    return {site: _plant(folder / WARD / site, site, seed) for seed, site in enumerate(sites)}


def _plant(folder: Path, site: str, seed: int) -> Path:
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = [["image", "label", "patient", "site", "split"]]
    for number in range(36):
        name = f"{FILE}-{number:02d}.png"
        Image.fromarray(draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(folder / name)
        split = ["train", "train", "validation", "test"][number // 3 % 4]
        rows.append([name, CLASSES[number % 3], f"{PATIENT}-{number:02d}", site, split])
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "table.csv"


def damage(table: Path) -> None:
    """Cut off an image of the test part, which every run decodes."""
    image = table.parent / f"{FILE}-09.png"
    image.write_bytes(image.read_bytes()[:200])


def pixels(tables: Iterable[Path]) -> dict[str, list[bytes]]:
    """Pieces of every image as it may lie in memory: by pixel or by colour, as bytes or floats."""
    pieces = []
    for table in tables:
        for file in table.parent.glob("*.png"):
            image = np.asarray(Image.open(file))
            for one in (image[0, :8], image[0, :8, 0], image[0, :24, 1]):
                plain = np.ascontiguousarray(one)
                of_floats = (plain / np.float32(255)).astype(np.float32)
                pieces += [of_floats.tobytes(), plain.astype(np.float32).tobytes()]
                if plain.size >= 24:  # shorter ones might be met by chance
                    pieces.append(plain.tobytes())
    return {"pixels": pieces}


def encoded(word: str) -> list[bytes]:
    """A word as it may be written: plain, wide, in hexadecimal, and in base64 at any place.

    >>> b"amFuZS1kb2UtN2YzY" in encoded("jane-doe-7f3a")
    True
    """
    plain = word.encode()
    wide = [word.encode("utf-16-le"), word.encode("utf-16-be")]
    hexadecimal = [plain.hex().encode(), plain.hex().upper().encode()]
    shifted = [base64.b64encode(b"\0" * by + plain)[-(-4 * by // 3) :] for by in range(3)]
    return [plain, *wide, *hexadecimal, *(one.rstrip(b"=")[:-1] for one in shifted)]


def markers(tables: Iterable[Path]) -> dict[str, list[bytes]]:
    """All that is looked for, by what it is."""
    return {what: encoded(word) for what, word in WORDS.items()} | pixels(tables)


def found(known: dict[str, list[bytes]], data: bytes) -> set[str]:
    """Which kinds of markers are in some bytes, or in the files of an archive in them."""
    kinds = {what for what, pieces in known.items() if any(one in data for one in pieces)}
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                kinds |= found(known, name.encode()) | found(known, archive.read(name))
    return kinds


def found_in(known: dict[str, list[bytes]], folder: Path) -> dict[str, set[str]]:
    """The files of a folder that have markers in them or in their names below it."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    kinds = {
        str(file): found(known, str(file.relative_to(folder)).encode())
        | found(known, file.read_bytes())
        for file in files
    }
    return {file: of for file, of in kinds.items() if of}
