"""A Chromium for tests: one that is installed, driven without a window."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync")
QUIET += ("--disable-background-networking", "--disable-component-update")


def find_chromium() -> str:
    """Return the path of a Chromium, or skip the test."""
    wanted = (os.environ.get("CHROMIUM", ""), *NAMES)
    found = next((path for name in wanted if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here: install chromium, or set CHROMIUM to its path")
    return found


@pytest.fixture(scope="session", name="browser")
def chromium() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield started
        started.close()


class Visit:
    """A page that was opened, with all that it asked for and complained of."""

    def __init__(self, browser: Browser, file: Path, **options: object) -> None:
        self.page: Page = browser.new_context(**options).new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
