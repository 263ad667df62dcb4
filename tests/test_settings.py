"""Settings: short names, files, saved and read again, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from pydantic.dataclasses import dataclass

from counterpoint.effects import without_effect
from counterpoint.errors import SettingsError
from counterpoint.local import Plain
from counterpoint.methods import find_method, methods
from counterpoint.settings import as_dict, flatten, from_dict, make_settings, read_file, to_yaml


@pytest.mark.parametrize("method", methods())
def test_saved_settings_come_back(method: str) -> None:
    changes = {"rounds": 3, "seed": 7, "sites": ["a", "b"], "model_options": {"norm": "x"}}
    settings = make_settings(method, "data.csv", changes)
    assert from_dict(yaml.safe_load(to_yaml(settings))) == settings


def test_both_systems_in_one_line() -> None:
    method = make_settings("prrfl", "x", {"harmonise": "amplitude", "perturbation": 0.05}).method
    assert (method.local.kind, method.aggregation.kind) == ("deputy", "pfa")
    assert (method.harmonise.kind, method.perturbation) == ("amplitude", 0.05)


def test_a_part_of_another_kind_has_its_own_defaults() -> None:
    settings = make_settings("fedavg", "x", {"local": "proximal", "mu": 0.5})
    assert as_dict(settings)["local"] == {"kind": "proximal", "mu": 0.5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"round": 3}, "unknown setting 'round'; did you mean 'rounds'"),
        ({"schedule.round": 3}, "did you mean 'schedule.rounds'"),
        ({"rounds": "many"}, r"schedule.rounds: a whole number .*'many'"),
        ({"rounds": True}, r"schedule.rounds: a number is needed \(got True\)"),
        ({"data.sites": "Lyon,Graz"}, r"data.sites: a list is needed, \[a, b\] .*Lyon,Graz"),
        ({"data.classes": [False, True]}, r"data.classes: a text is needed .*in quotes"),
        ({"lr": float("nan")}, "schedule.lr: NaN is no number"),
        ({"rounds": 0}, r"schedule.rounds: .*greater than or equal to 1 \(got 0\)"),
        ({"lr": -1}, "schedule.lr"),
        ({"local": "depty"}, "unknown local 'depty'; did you mean 'deputy'"),
        ({"statistics": "averagd"}, "statistics.*'averaged'"),
        ({"exchange": 2.0}, "exchange <= sublimate"),
        (
            {"mu": 1.0},
            r"unknown setting 'mu' \(it belongs to local 'proximal' or local 'contrastive'",
        ),
        ({"harmonise": "amplitude", "band": 1.5}, "band must be"),
        ({"seed": -1}, "seed"),
        ({"workers": 0}, "machine.workers"),
    ],
)
def test_what_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_settings("prrfl", "x", changes)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("schedule:\n  rounds: 4\nlocal:\n  exchange: 0.5\n")
    (tmp_path / "a.toml").write_text("[schedule]\nrounds = 4\n[local]\nexchange = 0.5\n")
    for name in ("a.yaml", "a.toml"):
        values = dict(flatten(read_file(tmp_path / name)))
        assert values == {"schedule.rounds": 4, "local.exchange": 0.5}
        assert make_settings("prrfl", "x", values).method.schedule.rounds == 4
    (tmp_path / "empty.yaml").write_text("")
    assert read_file(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n"])
def test_files_that_are_no_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"bad\.yaml"):
        read_file(tmp_path / "bad.yaml")
    with pytest.raises(SettingsError, match="missing"):
        read_file(tmp_path / "missing.yaml")


def test_a_setting_that_is_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("schedule:\n  rounds: 1\n  lr: 0.1\n  rounds: 3\n")
    with pytest.raises(SettingsError, match=r"line 4, column 3: 'rounds' is twice"):
        read_file(file)


def test_a_setting_that_is_given_under_two_names_is_refused() -> None:
    words = "'schedule.lr' and 'lr' are one setting; give it once"
    with pytest.raises(SettingsError, match=words):
        make_settings("fedavg", "phantom", {"schedule.lr": 1, "lr": 2})
    with pytest.raises(SettingsError, match=r"'local' and 'local\.kind' are one setting"):
        make_settings("fedavg", "phantom", {"local": "plain", "local.kind": "ditto"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adaptive": True}, "adaptive has no effect: there is no perturbation"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum has no effect: the optimiser is 'adam'"),
        ({"keep_optimizer": True}, "keep_optimizer has no effect"),
        ({"select_last": 0.5, "participation": 0.5}, "select_last has no effect"),
        ({"aggregation": "none", "weighting": "images"}, "weighting has no effect"),
        ({"pooled": True, "participation": 0.5}, "participation has no effect"),
    ],
)
def test_settings_that_do_nothing_are_said(changes: dict[str, object], words: str) -> None:
    (said,) = without_effect(make_settings("fedavg", "phantom", changes).method)
    assert words in said


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_no_method_has_settings_that_do_nothing(method: str, task: str) -> None:
    said = without_effect(make_settings(method, "retina", {"data.task": task}).method)
    assert [one for one in said if method not in ("local", "finetune")] == []


@dataclass(frozen=True)
class Mine(Plain):
    """A local update with a setting that a part of ours has as well."""

    kind: ClassVar[str] = "mine"
    beta2: float = 0.5


def test_a_part_of_ones_own_has_its_own_settings() -> None:
    own = replace(find_method("fedavg"), local=Mine())
    assert make_settings(own, "phantom", {"beta2": 0.75}).method.local == Mine(beta2=0.75)


@pytest.mark.parametrize(
    ("task", "wanted"),
    [("classification", (3.0, 15, "kl", 1.0)), ("segmentation", (1.0, 1, "mse", 10.0))],
)
def test_the_journals_local_update_is_that_of_the_task(
    task: str, wanted: tuple[float, int, str, float]
) -> None:
    settings = make_settings("prrfl-journal", "x", {"data.task": task})
    local = as_dict(settings)["local"]
    names = ("tau", "warm_up", "distillation", "weight")
    assert tuple(local[name] for name in names) == wanted
    assert from_dict(yaml.safe_load(to_yaml(settings))) == settings
