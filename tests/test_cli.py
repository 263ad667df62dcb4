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
    assert done.returncode == 2
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


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("--set", "local=ditto"), "ditto"),
        (("--set", "local.kind=ditto"), "ditto"),
        (("--local", "ditto"), "ditto"),
        ((), "deputy"),
    ],
)
def test_options_win_over_a_file_by_whatever_name(tmp_path: Path, words, kind) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("local: {kind: deputy, exchange: 0.2}\nschedule: {lr: 0.5}\nrounds: 9\n")
    given = [*SMALL, "--config", file, "--set", "lr=0.25", *words]
    done = call("run", "fedavg", "phantom", *given, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    saved = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert saved["local"]["kind"] == kind
    assert (saved["schedule"]["lr"], saved["schedule"]["rounds"]) == (0.25, 2)


def test_one_setting_by_two_options_is_refused(tmp_path: Path) -> None:
    done = call("run", "fedavg", "phantom", "--local", "plain", "--set", "local=deputy")
    assert done.returncode == 2
    assert "--set local=deputy: local.kind is given twice" in done.stderr


def test_a_file_of_another_method_is_noted(finished: Path, tmp_path: Path) -> None:
    given = ["--config", finished / "settings.yaml", "--out", tmp_path / "run"]
    done = call("run", "fedavg", "phantom", *given, "--rounds", "1")
    assert "is that of 'prrfl', and is used under the name of 'fedavg'" in done.stderr


def test_a_home_is_found_by_its_sign(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves the ~ of --out=~/runs as it is."""
    monkeypatch.setenv("HOME", str(finished.parent))
    done = call("show", "~/run")
    assert done.returncode == 0, done.stderr
    done = call("report", "~/run", "--out=~/page.html")
    assert (finished.parent / "page.html").exists()
    done = call("report", finished, f"--out={finished}/settings.yaml")
    assert (done.returncode, "is no page" in done.stderr) == (2, True)


def test_a_folder_may_begin_with_a_sign_of_home(tmp_path: Path) -> None:
    (tmp_path / "~nobody").mkdir()
    done = call("show", "~nobody", cwd=tmp_path)
    assert (done.returncode, "is not the folder of a run" in done.stderr) == (1, True)


def test_who_reads_may_have_enough(finished: Path) -> None:
    words = f"{sys.executable} -m counterpoint.cli methods --json | true"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    full = f"{sys.executable} -m counterpoint.cli methods --json > /dev/full"
    done = subprocess.run(["bash", "-c", full], capture_output=True, text=True, check=False)
    assert "bug" not in done.stderr


def test_letters_that_a_terminal_lacks_are_written_otherwise(tmp_path: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii", "COLUMNS": "200", "PATH": os.environ["PATH"]}
    words = [sys.executable, "-m", "counterpoint.cli", "inspect", str(tmp_path / "Lyon é")]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert "Lyon \\xe9' is neither a data set" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "fedavg", "phantom", "--seed", str(2**64)], "seed"),
        (["run", "fedavg", "phantom", "--set", "data.split_seed=-1"], "data.split_seed"),
        (["run", "fedavg", "phantom", "--threads", "100000"], "100000 threads on"),
        (["run", "fedavg", "phantom", "--device", "meta"], "device 'meta' can't be used"),
        (["run", "fedavg", "phantom", "--privacy", "payload", "--set", "delta=1"], "delta"),
        (["cache", "--older-than", "nan"], "no number of days"),
        (["inspect", "phantom", "--window", "a,b"], "must be two numbers"),
        (
            ["compare", "fedavg", "--data", "phantom", "--seeds", "20240101", "--out", "s"],
            "(--seeds 20240101,)",
        ),
        (["compare", "fedavg", "--vary", "lr=1", "--vary", "lr=2", "--out", "s"], "named twice"),
        (["flower", "init", "fedavg", "phantom", "--json", "--classes", "a,b"], "name the sites"),
    ],
)
def test_odd_values_are_no_bugs(words: list[str], said: str, tmp_path: Path) -> None:
    done = call(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "bug" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_two_runs_in_one_folder_at_once(tmp_path: Path) -> None:
    """One of them makes it, and its settings are those that are saved."""
    command = [sys.executable, "-m", "counterpoint.cli", "run", "fedavg", "phantom", *SMALL]
    processes = [
        subprocess.Popen(
            [*command, "--lr", lr, "--out", str(tmp_path / "run")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for lr in ("0.1", "0.2")
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes)[0] == 0, said
    assert sorted(codes)[1] in (1, 2), said
    saved = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert saved["schedule"]["lr"] == (0.1, 0.2)[codes.index(0)]
