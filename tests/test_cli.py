"""The command line through real processes."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SMALL = ["--rounds", "2", "--local-epochs", "1", "--image-size", "32", "--batch-size", "8"]
SMALL += ["--train-limit", "16", "--workers", "1", "--model", "tests.networks:Tiny"]
ROOT = Path(__file__).parents[1]


def call(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "counterpoint.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = call("run", "prrfl", "phantom", *SMALL, "--set", "phase=mean", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "east" in done.stdout
    assert "mean" in done.stdout
    assert str(folder) in done.stdout
    # quiet when not on a terminal, but for what there is to say of the data
    assert all(line.startswith("note: ") for line in done.stderr.splitlines()), done.stderr
    return folder


def test_run_saves_the_settings_that_it_used(finished: Path) -> None:
    saved = yaml.safe_load((finished / "settings.yaml").read_text())
    assert saved["schedule"]["rounds"] == 2
    assert saved["aggregation"]["phase"] == "mean"
    assert saved["method"] == "prrfl"
    assert saved["machine"]["workers"] == 1


def test_show_prints_the_table_again(finished: Path) -> None:
    shown = call("show", finished)
    assert shown.returncode == 0
    test = json.loads((finished / "results.json").read_text())["test"]
    for site, scores in test.items():
        line = next(line for line in shown.stdout.splitlines() if site in line)
        assert f"{100 * scores['macro_f1']:.1f}" in line
    assert "note: " in shown.stdout
    assert "retrogress of the personal model" in shown.stdout
    assert "note: " not in call("show", finished, "--quiet").stdout


def test_where_nothing_is_merged_nothing_is_lost_by_it(tmp_path: Path) -> None:
    done = call("run", "local", "phantom", *SMALL, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "retrogress" not in done.stdout.replace("retrogress.png", "")


def test_saved_settings_run_again_to_the_same_end(finished: Path, tmp_path: Path) -> None:
    again = call(
        "run", "prrfl", "phantom", "--config", finished / "settings.yaml", "--out", tmp_path / "r"
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "r" / "scores.csv").read_bytes() == (finished / "scores.csv").read_bytes()


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[schedule]\nrounds = 9\nlr = 0.5\n")
    small = [*SMALL[:1], "1", *SMALL[2:]]
    done = call(
        "run", "fedavg", "phantom", "--config", tmp_path / "c.toml", *small, "--out", tmp_path / "r"
    )
    assert done.returncode == 0, done.stderr
    saved = yaml.safe_load((tmp_path / "r" / "settings.yaml").read_text())["schedule"]
    assert (saved["rounds"], saved["lr"]) == (1, 0.5)


def test_what_is_wrong_in_the_file_is_said_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("schedule: {rounds: 0}\n")
    asked = ["run", "fedavg", "phantom", "--config", tmp_path / "c.yaml", "--out", tmp_path / "r"]
    done = call(*asked)
    assert done.returncode == 2
    assert f"settings file {tmp_path / 'c.yaml'}: setting schedule.rounds: " in done.stderr
    done = call(*asked, "--rounds", "1", "--lr", "-1")
    assert done.returncode == 2
    assert "error: setting schedule.lr: " in done.stderr


def test_lists(tmp_path: Path) -> None:
    methods = call("methods").stdout
    for name in ("prrfl", "harmofl", "fedavg", "fedprox", "fedbn", "silobn", "local", "pooled"):
        assert name in methods
    page = call("methods", "prrfl").stdout
    for words in ("MICCAI 2021", "local.exchange", "0.7", "schedule.rounds", "50"):
        assert words in page
    assert "phantom" in call("datasets").stdout
    inspected = call("inspect", "phantom")
    for words in ("east", "class irregular", "train", "red", "leakage: none found"):
        assert words in inspected.stdout
    assert "note:" not in inspected.stdout
    assert "note: a split was made" in inspected.stderr


def test_the_default_folder_is_named_after_the_run(tmp_path: Path) -> None:
    small = [*SMALL[:1], "1", *SMALL[2:]]
    done = call("run", "local", "phantom", *small, "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "local-phantom-3" / "results.json").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "prfl", "phantom"], "did you mean 'prrfl'"),
        (["run", "prrfl", "phantm"], "did you mean 'phantom'"),
        (["run", "prrfl", "phantom", "--round", "3"], "--rounds"),
        (["run", "prrfl", "phantom", "--set", "round=3"], "did you mean 'rounds'"),
        (["run", "prrfl", "phantom", "--set", "rounds"], "NAME=VALUE"),
        (["run", "prrfl", "phantom", "--model", "slim-vgg6"], "did you mean 'slim-vgg16'"),
        (["run", "prrfl", "phantom", "--model", "tests.networks:WrongShape"], r"(2, 3)"),
        (["run", "prrfl", "phantom", "--device", "cuda:99"], "cuda:99"),
        (["run", "prrfl", "phantom", "--sites", "east,nort"], "did you mean 'north'"),
        (["run", "prrfl", "dermoscopy"], "root"),
        (["methods", "prfl"], "did you mean 'prrfl'"),
        (["run", "prrfl", "phantom", "--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_words_exit_with_2_and_say_what_to_do(
    words: list[str], expected: str, tmp_path: Path
) -> None:
    done = call(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []  # nothing half-made


def test_debug_shows_the_traceback() -> None:
    done = call("--debug", "run", "prfl", "phantom")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_live_display_on_a_terminal(tmp_path: Path) -> None:
    """In a pseudo-terminal the display names site, stage and time left."""
    ours, theirs = pty.openpty()
    to = ["--local-epochs", "20", "--out", str(tmp_path / "r")]  # it is drawn four times a second
    process = subprocess.Popen(
        [sys.executable, "-m", "counterpoint.cli", "run", "prrfl", "phantom", *SMALL, *to],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"COLUMNS": "120", "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    assert process.wait(timeout=60) == 0
    for words in (b"of 2", b"east", b"macro-F1", b"0:0"):
        assert words in seen, words
    assert any(stage in seen for stage in (b"recover", b"exchange", b"sublimate"))
