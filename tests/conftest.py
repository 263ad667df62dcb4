"""Fixtures that all tests share: a cache of their own, and real data where there are any."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep the user's cache out of the tests; the phantom is made once a session."""
    before = os.environ.get("COUNTERPOINT_CACHE")
    os.environ["COUNTERPOINT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["COUNTERPOINT_CACHE"]
    else:
        os.environ["COUNTERPOINT_CACHE"] = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with real data sets, or skip the test."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("COUNTERPOINT_DATA", beside))
    if not (folder / "dermoscopy").is_dir():
        pytest.skip(f"no real data in {folder}; set COUNTERPOINT_DATA to a folder with dermoscopy")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most time in a tiny run: figures, intervals, waiting for disks."""
    from counterpoint import api, exam

    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(api, "draw_figures", lambda result: None)
    monkeypatch.setattr(exam, "DRAWS", 10)
