"""The documentation: it builds strictly, reaches nobody, and every command and code on it works.

A page is worked through from top to bottom in an empty folder. Blocks of `sh` are lines that begin
with `counterpoint`, and are run; blocks of `python` are run, in one namespace; blocks whose title
is a file's name are written to that file. Blocks with a title that begins with "needs" (images, a
network, hours) are not run: their commands are parsed and their settings made, their Python is
compiled. Commands are run as they are written, but with a small network, a few bootstrap draws and
one process, since it is the words that are tested here, not the scores.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

import counterpoint
from counterpoint import api, cli
from counterpoint.cli import training
from counterpoint.data import datasets
from counterpoint.data.sets import datasets as sets
from counterpoint.methods import methods
from counterpoint.models import MODELS
from counterpoint.settings import make_settings
from tests.networks import Dense, Tiny

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "text", "csv", "yaml", "toml", "json"}


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[list[str]]:
    """Commands of a block, each as words; comments are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def only_settings(method: str, data: str, **given: object) -> None:
    """Stand in for `counterpoint.run`: refuse what it would refuse without looking at data."""
    settings = dict(given["settings"])  # type: ignore[call-overload]
    task = sets()[data].tasks[0] if data in datasets() else "classification"
    known = method if method in methods() else "fedavg"
    make_settings(known, data, {"data.task": task} | settings)


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command, and make the settings of a run."""
    if words[0] == "run" and len(words) > 2:
        with monkeypatch.context() as patch:
            patch.setattr(counterpoint, "run", only_settings)
            patch.setattr(training, "show_result", lambda result, notes: None)
            done = CliRunner().invoke(cli.app, words)
        assert done.exit_code == 0, (words, done.stderr, done.exception)
        return
    group = typer.main.get_command(cli.app)
    if words[0].startswith("-"):
        assert words[0] in {option for one in group.params for option in one.opts} | {"--help"}
        return
    command = group.get_command(None, words[0])  # type: ignore[attr-defined]
    assert command is not None, f"there is no command {words[0]}"
    try:
        command.make_context(words[0], words[1:])
    except typer.Exit:  # --help
        pass
    except Exception as error:
        if "Missing parameter" not in str(error):  # a command that is only named
            raise AssertionError(f"{words}: {error}") from error


@pytest.fixture
def small(quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("slim-vgg16", "densenet121"):
        monkeypatch.setitem(MODELS, name, Tiny)
    monkeypatch.setitem(MODELS, "unet", partial(Dense, spatial_dims=2))
    monkeypatch.setattr(api, "share_cores", lambda *given: (1, 1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_all_that_a_page_shows_works(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("page")
    for language, title, text in blocks(page):
        assert language in LANGUAGES, f"{page}: a block of {language or 'no language'}"
        if title.startswith("needs"):
            if language == "python":
                compile(text, f"{page}: {title}", "exec")
            for words in commands(text) if language == "sh" else ():
                if words[0] == "counterpoint":
                    check(words[1:], monkeypatch)
        elif title:
            Path(title).write_text(text, encoding="utf-8")
            if title.endswith(".py"):
                runpy.run_path(title)
        elif language == "python":
            exec(compile(text, str(page), "exec"), module.__dict__)
        elif language == "sh":
            for words in commands(text):
                assert words[0] == "counterpoint", f"{page}: {words} is not run"
                done = CliRunner().invoke(cli.app, words[1:])
                assert done.exit_code == 0, (words, done.stderr, done.exception)
    for name in [name for name in sys.modules if name in {p.stem for p in Path().glob("*.py")}]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_a_sentence_or_table_have_the_right_words(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert not re.search(r"^    counterpoint ", text, re.MULTILINE), "indented, so it escapes"
    for inline in re.findall(r"`counterpoint ([^`]+)`", text):
        if "--server adam --aggregation pfa" not in inline:  # shown because it is refused
            check(shlex.split(inline), monkeypatch)


def test_commands_that_do_not_fit_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail."""
    for wrong in (
        "run fedavg DATA --no-such-option 3",
        "run fedavg DATA --server adam --aggregation pfa",
        "run fedavg phantom --set nosuch=3",
        "show RUN --nothing",
        "nosuch",
        "--nosuch",
    ):
        with pytest.raises(AssertionError):
            check(shlex.split(wrong), monkeypatch)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly from a copy, with its figures drawn anew."""
    pytest.importorskip("zensical", reason="the extra 'docs' is not installed")
    folder = tmp_path_factory.mktemp("docs")
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for line in (["docs/figures.py"], ["-m", "zensical", "build", "--strict", "--clean"]):
        done = subprocess.run(
            [sys.executable, *line],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=200,
            env=os.environ | {"PYTHONPATH": "docs:src"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_it_builds_strictly_and_has_every_page(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix(".html")
        built = site / (path.with_name("index.html") if page.name == "README.md" else path)
        assert built.is_file(), built
        title = page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").strip("`")
        assert title.split()[0].strip("`") in built.read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"^ +- .*?: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert listed == pages


def test_the_site_asks_nobody_else_for_anything(site: Path) -> None:
    loaded = re.compile(
        r'<(?:script|img|iframe|source)\b[^>]*?\bsrc="?(https?:)?//|'
        r'<link\b(?![^>]*rel="?canonical)[^>]*?\bhref="?(?:https?:)?//|'
        r"url\(\s*['\"]?(?:https?:)?//|@import"
    )
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        found = loaded.search(file.read_text(encoding="utf-8"))
        assert not found, f"{file}: {found}"


def test_formulae_are_drawn_by_the_browser(site: Path) -> None:
    page = (site / "mathematics.html").read_text(encoding="utf-8")
    assert page.count("<math") > 60
    assert "arithmatex" not in page
    for formula in re.findall(r"<math.*?</math>", page, re.DOTALL):
        assert "\\" not in formula, formula  # a command that was not understood


def test_examples_in_docstrings_are_code(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    assert page.count("&gt;&gt;&gt;") > 30
    assert "&gt;&gt;&gt;" not in re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL)
    assert ":func:" not in page
    assert ":meth:" not in page
