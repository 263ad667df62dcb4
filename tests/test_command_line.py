"""What all commands have in common: completion, --quiet, --json, progress, and errors in words."""

import errno
import io
import json
import os
import shlex
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import counterpoint
from counterpoint import cli
from counterpoint.cli import common
from counterpoint.cli.complete import WORDS, names
from counterpoint.crew import told
from counterpoint.data import datasets, write_phantom
from counterpoint.data.downloads import DOWNLOADS
from counterpoint.figures import FIGURES
from counterpoint.figures.convergence import AGAINST
from counterpoint.landscape.view import SHAPES, View
from counterpoint.methods import Schedule, methods
from counterpoint.models import MODELS
from counterpoint.remote.audit import Line, record
from counterpoint.report.live import Display, live_display
from counterpoint.report.logs import LOGS
from counterpoint.settings import CHOICES, Data
from counterpoint.statistics import Statistics
from counterpoint.study.budget import Budget
from counterpoint.study.entry import Entry
from counterpoint.study.live import Board
from counterpoint.study.plan import Planned
from counterpoint.tasks import Loss


def call(words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command, in this process."""
    done = CliRunner().invoke(cli.app, shlex.split(words))
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "run"
    settings = {"model": "tests.networks:Tiny", "image_size": 32, "train_limit": 16, "workers": 1}
    counterpoint.run("fedavg", "phantom", out=folder, settings=settings, rounds=1, local_epochs=1)
    return folder


def literal(model: type, field: str) -> tuple[str, ...]:
    """Words that a setting may have."""
    kind = model.__dataclass_fields__[field].type  # type: ignore[attr-defined]
    return tuple(w for one in (kind, *get_args(kind)) for w in get_args(one) if isinstance(w, str))


def test_completion_knows_what_there_is() -> None:
    assert names("method") == sorted(methods())
    assert names("data") == sorted(datasets())
    assert names("download") == sorted(DOWNLOADS)
    for part, kinds in CHOICES.items():
        assert names(part) == sorted(kinds)
    for name in ("augmentation", "optimizer", "precision"):
        assert WORDS[name] == literal(Schedule, name)
    assert WORDS["loss"] == get_args(Loss)
    assert WORDS["statistics"] == get_args(Statistics)
    assert WORDS["task"] == literal(Data, "task")
    assert set(WORDS["volumes"]) == set(literal(Data, "volumes"))
    assert set(WORDS["model"]) == set(MODELS)
    assert WORDS["log"] == tuple(LOGS)
    assert WORDS["figure"] == tuple(FIGURES)
    assert set(WORDS["shape"]) == set(SHAPES)
    assert WORDS["against"] == tuple(AGAINST)
    assert WORDS["budget"] == get_args(Budget)
    for name, words in (("split", "split"), ("statistics", "statistics of a landscape")):
        for word in WORDS[words]:
            assert getattr(View(**{name: word}), name) == word


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("counterpoint run pr", ["prrfl", "prrfl-journal"]),
        ("counterpoint run prrfl ph", ["phantom"]),
        ("counterpoint run prrfl phantom --aggregation p", ["pfa"]),
        ("counterpoint run prrfl phantom --log ", ["tensorboard", "mlflow"]),
        ("counterpoint inspect phantom --volumes w", ["whole"]),
        ("counterpoint fetch st", ["stare"]),
    ],
)
def test_shells_are_given_the_values(line: str, expected: list[str]) -> None:
    """In the protocol that the scripts of bash, zsh and fish speak; and without importing torch."""
    script = "import sys; from counterpoint.cli import app\n"
    script += "try: app(prog_name='counterpoint')\n"
    script += "finally: print('torch' in sys.modules, file=sys.stderr)"
    typed = line.split(" ")
    asked = {"bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(typed) - 1)}}
    asked["fish"] = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    asked["zsh"] = {"_TYPER_COMPLETE_ARGS": line}
    shell = ("bash", "zsh", "fish")[len(expected[0]) % 3]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | asked[shell] | {"_COUNTERPOINT_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
    )
    for word in expected:
        assert word in done.stdout, (shell, done.stderr)
    assert "prototype" not in done.stdout
    assert done.stderr.strip() == "False"


def test_help_tells_the_exit_codes() -> None:
    code, shown, _ = call("--help")
    assert code == 0
    for words in ("0 done", "2 wrong words", "130 interrupted", "--install-completion"):
        assert words in " ".join(shown.split())


@pytest.mark.parametrize(
    "words",
    ["methods", "methods prrfl", "datasets", "inspect phantom", "fetch"],
)
def test_json_is_all_that_is_printed(words: str) -> None:
    code, shown, told = call(f"{words} --json")
    assert code == 0
    assert json.loads(shown)
    assert told == ""


def test_quiet_prints_the_result_and_no_notes() -> None:
    loud, quiet = call("inspect phantom"), call("inspect phantom --quiet")
    assert "note:" in loud[2]
    assert quiet[2] == ""
    assert "class irregular" in quiet[1]


@pytest.mark.parametrize("options", ["", "--quiet", "--json"])
def test_a_leak_is_a_warning_that_is_always_seen(options: str, tmp_path: Path) -> None:
    write_phantom(tmp_path / "own", size=16, scale=0.2)
    table = tmp_path / "own" / "east" / "labels.csv"
    for one in tmp_path.glob("own/*/labels.csv"):
        rows = pd.read_csv(one)
        rows["split"] = [("train", "test", "validation")[n % 3] for n in range(len(rows))]
        rows["group"] = "one patient" if one == table else [f"p{n}" for n in range(len(rows))]
        rows.to_csv(one, index=False)
    code, shown, told = call(f"inspect {tmp_path / 'own'} {options}")
    assert code == 0
    (line,) = (line for line in told.splitlines() if "leaks" in line)
    assert line.startswith("warning: the split leaks: site 'east'")
    assert "warning" not in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("inspect nowhere", "neither a data set"),
        ("inspect phantom --root /x", "takes no root"),
        ("inspect phantom --seed -3", "--seed"),
        ("methods prrfl --task foo", "classification"),
        ("fetch nope", "no data set 'nope'"),
        ("fetch hrf --accept-licence", "--root"),
        ("import-checkpoint nofile --from foo --out x", "prrfl, harmofl"),
        ("run prrfl phantom --set 'local=[1]' --out x", "unknown local '[1]'"),
        ("run prrfl phantom --set '=3' --out x", "unknown setting ''"),
        ("run prrfl phantom --set 'rounds=[1' --out x", "can't read '[1'"),
        ("run prrfl phantom --model-options 3 --out x", "model_options"),
        ("run prrfl phantom --window 1 --out x", "window"),
        ("run prrfl phantom --lr nan --out x", "schedule.lr"),
        ("run prrfl phantom --sites ,, --out x", "unknown site ''"),
        ("run prrfl phantom --log mlfow --out x", "did you mean 'mlflow'"),
        ("run os:path phantom --out x", "no Method named"),
        ("run '' phantom --out x", "unknown method"),
        ("run prrfl phantom --image-size abc --out x", "--image-size"),
        ("nocommand", "No such command"),
    ],
)
def test_wrong_words_are_errors_in_words(words: str, expected: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        code, _, told = call(words)
    assert code == 2
    assert expected in told
    assert "Traceback" not in told
    assert "bug" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["show", "resume"])
def test_what_is_no_run_is_said_to_be_none(command: str, tmp_path: Path) -> None:
    code, _, told = call(f"{command} {tmp_path}")
    assert code == 1
    assert "is not the folder of a run" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("show FILE", "FILE is not the folder of a run"),
        ("run fedavg phantom --image-size 32 --out FILE/run", "FILE/run can't be written"),
        ("export RUN --out FILE/model.safetensors", "FILE/model.safetensors can't be written"),
        ("report RUN --out FILE/page.html", "FILE/page.html can't be written"),
        ("figure retrogress RUN --out FILE/x", "FILE/x/retrogress.png can't be written"),
        ("predict RUN IMAGES --out FILE/x", "FILE/x can't be written"),
    ],
)
def test_a_wrong_place_is_named_as_it_was_typed(
    words: str, expected: str, small_run: Path, tmp_path: Path
) -> None:
    places = {"FILE": tmp_path / "file", "RUN": small_run, "IMAGES": tmp_path / "images"}
    places["FILE"].write_text("a file, not a folder")
    write_phantom(places["IMAGES"], size=32, scale=0.1)
    for name, place in places.items():
        words, expected = (text.replace(name, str(place)) for text in (words, expected))
    code, _, told = call(words)
    assert code == 1
    assert f"error: {expected}" in told
    assert "[Errno" not in told
    if "written" in expected:
        why = "there is a file in the place of its folder; choose a place that can be written to"
        assert f"{expected}: {why}" in told
        assert "resume" not in told
    assert places["FILE"].read_text() == "a file, not a folder"


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_tells_what_is_there_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counterpoint, "run", interrupt)
    out = tmp_path / "run"
    code, _, told = call(f"run fedavg phantom --out {out}")
    assert (code, told) == (130, "\nstopped before anything was begun\n")
    (out / "state").mkdir(parents=True)
    (out / "settings.yaml").touch()
    told = call(f"run fedavg phantom --out {out}")[2]
    go_on = f"go on with `counterpoint resume {out}`"
    assert told == f"\nstopped before a round was complete; {go_on}\n"
    (out / "state" / "round-00001.json").touch()
    told = call(f"run fedavg phantom --out {out}")[2]
    assert told == f"\nstopped: complete rounds are kept; {go_on}\n"


def test_ctrl_c_in_a_study_speaks_of_complete_rounds_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("counterpoint.study.compare"), "compare", interrupt)
    words = f"compare fedavg --data phantom --out {tmp_path}"
    code, _, told = call(words)
    assert (code, "complete rounds" in told) == (130, False)
    assert "no round was complete; the same command goes on" in told
    (tmp_path / "fedavg-1" / "state").mkdir(parents=True)
    (tmp_path / "fedavg-1" / "state" / "round-00001.json").touch()
    assert "complete rounds are kept; the same command goes on" in call(words)[2]


def test_a_full_disk_is_no_reason_to_resume_a_finished_run(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    before = sorted(small_run.iterdir())
    for words in (
        f"report {small_run}",
        f"figure retrogress {small_run} --out {small_run}",
        f"export {small_run} --out {small_run / 'model.safetensors'}",
    ):
        code, _, told = call(words)
        assert code == 1
        assert "the disk is full" in told
        assert "free some space and try again" in told
        assert "resume" not in told
        assert sorted(small_run.iterdir()) == before


def test_a_bug_is_called_one_and_shown_with_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    shown = Console(stderr=True, width=300)
    monkeypatch.setattr(common, "err", shown)

    def divide() -> None:
        """Divide by zero."""
        print(1 / 0)

    common.command(divide, app)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 1
    assert "ZeroDivisionError: division by zero. This is a bug of Counterpoint's" in done.stderr
    assert "--debug" in done.stderr
    debugged = CliRunner().invoke(app, ["--debug"])
    assert isinstance(debugged.exception, ZeroDivisionError)


def test_all_that_takes_long_shows_how_far_it_is() -> None:
    display = Display()
    shown = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for what, words in (
        ("checked", "comparing files"),
        ("inspected", "looking at images"),
        ("decoded", "decoding images"),
        ("tested", "scoring test images"),
    ):
        told(display.take, what)(3, 4)
        shown.print(display)
        text = shown.export_text()
        assert words in text
        assert "75 %" in text


def test_files_are_compared_and_looked_at_with_progress(tmp_path: Path) -> None:
    from counterpoint import inspect, load
    from counterpoint.data import write_phantom

    write_phantom(tmp_path / "own", size=16, scale=0.2)
    seen: list[tuple[int, int]] = []
    federation = load(
        tmp_path / "own", cache=tmp_path / "cache", progress=lambda *at: seen.append(at)
    )
    images = sum(len(site.table) for site in federation.sites)
    assert seen[-1] == (images, images)
    seen.clear()
    inspect(federation, progress=lambda *at: seen.append(at))
    assert sorted(done for done, _ in seen) == list(range(1, images + 1))


def test_completion_is_fast() -> None:
    """A shell waits for it at every tab."""
    env = os.environ | {"_COUNTERPOINT_COMPLETE": "complete_bash"}
    env |= {"COMP_WORDS": "counterpoint run ", "COMP_CWORD": "2"}
    before = time.process_time() + os.times().children_user
    subprocess.run([sys.executable, "-m", "counterpoint.cli"], env=env, capture_output=True)
    assert time.process_time() + os.times().children_user - before < 1


def test_warnings_of_a_run_stay_on_the_terminal() -> None:
    """What is drawn is wiped away at the end; words are printed above it, once."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, height=10)
    with live_display(console) as report:
        report({"warning": "the disk is odd"})
        for number in range(30):
            report({"note": f"note {number}"})
    shown = screen.getvalue()
    assert shown.count("warning: the disk is odd") == 1
    assert all(f"note: note {number}\n" in shown for number in range(30))


@pytest.mark.parametrize("quiet", [True, False])
def test_a_study_says_once_what_all_its_runs_say(quiet: bool) -> None:
    screen = io.StringIO()
    board = Board(Console(file=screen, width=80), quiet)
    for name in ("a", "b"):
        run = Planned(Entry("fedavg", name=name), 1, Path(name), Path("log"))
        board.take(run, {"warning": "the split leaks: 3 of 9"})
        board.take(run, {"note": "a split was made"})
        board.take(run, {"warning": f"a word of {name}"})
    shown = screen.getvalue().splitlines()
    assert shown == [
        "a, seed 1: warning: the split leaks: 3 of 9",
        *([] if quiet else ["a, seed 1: note: a split was made"]),
        "a, seed 1: warning: a word of a",
        "b, seed 1: warning: a word of b",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("inspect ~nobody-at-all/x", "'~nobody-at-all/x' is neither a data set"),
        ("run fedavg ~nobody-at-all/x", "'~nobody-at-all/x' is neither a data set"),
        ("run fedavg retina --root ~nobody-at-all/x", "~nobody-at-all/x"),
        ("flower simulate fedavg phantom --out -odd-", "choose another --out"),
        ("flower simulate pooled phantom", "trains on the data of all sites in one place"),
        ("flower simulate fedavg phantom --holdout east", "use `counterpoint run`"),
        (
            "compare fedavg:lr=0.5 --vary lr=0.1,0.2 --data phantom --out s",
            "is varied for all entries",
        ),
        ("compare fedavg:lr=0.5,lr=0.1 --data phantom --out s", "lr is given twice"),
        ("methods --task nonsense", "nonsense"),
        ("flare submit nowhere", "nowhere"),
    ],
)
def test_wrong_words_are_told_before_anything_is_done(
    words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words.replace("-odd-", "'a b'")
    code, shown, told = call(words)
    assert (code, shown) == (2, "")
    assert sentence in told
    assert "bug" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_cache_needs_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose user has none; a folder called ~ would be made otherwise."""
    monkeypatch.delenv("COUNTERPOINT_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"~/.cache/{name}")
    monkeypatch.setattr(Path, "expanduser", raises_runtime_error)
    code, _, told = call("inspect phantom")
    assert code == 2
    assert "name a folder: COUNTERPOINT_CACHE" in told


def raises_runtime_error(_: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("lines", "options", "sentence"),
    [
        ("privacy: {kind: records, noise: 2}", "", "so privacy.kind would be lost"),
        ("encrypt: true", "", "so encrypt would be lost"),
        ("encrypt: true", "--encrypt", ""),
        ("schedule: {roundz: 1}", "", "error: settings file FILE: unknown setting"),
        ("schedule: {rounds: 1}", "", ""),
        ("local: {kind: deputy}\nmachine: {threads: 1}", "", "note: of FILE, local, machine are"),
    ],
)
def test_what_a_study_does_not_take_of_a_file_is_said(
    lines: str, options: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("counterpoint.study.compare"), "compare", interrupt)
    file = tmp_path / "my.yaml"
    file.write_text(lines)
    words = f"compare fedavg --data phantom --config {file} --out {tmp_path / 's'} {options}"
    code, _, told = call(words)
    assert code == (2 if "lost" in sentence or "error" in sentence else 130)
    assert sentence.replace("FILE", str(file)) in told
    if not sentence:
        assert "taken" not in told


def test_a_record_is_never_cut_off(tmp_path: Path) -> None:
    """Without a terminal there are 80 columns for ten fields, one a checksum of 64 letters."""
    digest = "".join(f"{number:02x}" for number in range(32))
    time = "2026-11-24T01:02:03.456+00:00"
    line = Line(time, "run-1", 1, "out", "answer", "head.weight", "3x4", 48, digest, "server")
    record(tmp_path, [line])
    code, shown, _ = call(f"audit {tmp_path} --tensors")
    assert code == 0
    assert "…" not in shown
    rows = [row.split("│") for row in shown.splitlines() if "│" in row]
    columns = ["".join(cell.strip() for cell in column) for column in zip(*rows, strict=True)]
    assert {digest, time, "head.weight"} <= {*columns}
