"""Every method on every task, and what makes a method stumble: tiny, but whole runs.

Three sites, of which 'single' has two training images, a single batch.
"""

import math
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import counterpoint
from counterpoint.aggregation import AGGREGATIONS, ProgressiveFourier
from counterpoint.data.site import Federation
from counterpoint.errors import SettingsError
from counterpoint.federation import taking_part
from counterpoint.methods import Method, find_method, methods
from counterpoint.report.table import methods_table
from counterpoint.server_update import SERVER_UPDATES, Adam
from counterpoint.settings import CHOICES, make_settings
from tests.running import call

pytestmark = pytest.mark.usefixtures("quick")

LABELS = ("dim", "bright")
SITES = {"large": 6, "middle": 5, "single": 2}
TINY = {"batch_size": 4, "image_size": 16, "workers": 1, "threads": 1}
SMALL = TINY | {"rounds": 1, "local_epochs": 2}
LABEL = {"model": "tests.networks:Tiny", "model_options": {}}
PIXELS = {"model": "tests.networks:Dense", "model_options": {}}
UNET = {"model": "unet", "model_options": {"features": 2}}


def write(folder: Path, deep: bool) -> Path:
    """Write three sites of squares (or cubes) on a ground with noise, with labels and masks."""
    rng = np.random.default_rng(0)
    shape, end = (16,) * (3 if deep else 2), "nii.gz" if deep else "png"
    for number, (site, count) in enumerate(SITES.items()):
        (folder / site).mkdir(parents=True)
        lines = ["image,label,mask,split"]
        for index, split in enumerate(["train"] * count + ["validation"] * 2 + ["test"] * 2):
            label, corner = index % 2, rng.integers(1, 8, size=len(shape))
            mask = np.zeros(shape, dtype=np.uint8)
            mask[tuple(slice(c, c + 6) for c in corner)] = 1
            noise = rng.integers(0, 40, shape, dtype=np.uint8)
            image = noise + mask * np.uint8(80 + 80 * label) + np.uint8(20 * number)
            for name, values in ((f"{index}.{end}", image), (f"{index}-mask.{end}", mask)):
                if deep:
                    nibabel.Nifti1Image(values, np.eye(4)).to_filename(folder / site / name)
                else:
                    Image.fromarray(values * (255 if values is mask else 1)).save(
                        folder / site / name
                    )
            lines.append(f"{index}.{end},{LABELS[label]},{index}-mask.{end},{split}")
        (folder / site / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("flat") / "squares", deep=False)


@pytest.fixture(scope="module")
def tasks(flat: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Federation]:
    deep = write(tmp_path_factory.mktemp("deep") / "cubes", deep=True)
    return {
        "classification": counterpoint.load(flat, protocol="given"),
        "segmentation": counterpoint.load(flat, protocol="given", task="segmentation"),
        "volumes": counterpoint.load(
            deep, protocol="given", task="segmentation", volumes="whole", window=(0, 255)
        ),
    }


def assert_whole(result: counterpoint.Result, score: str) -> None:
    """All sites are tested once with finite scores, and every loss on the way was finite."""
    assert sorted(result.table.index) == sorted(SITES)
    assert result.table[score].between(0, 1).all()
    assert result.table["loss"].map(math.isfinite).all()
    scores = result.scores
    assert scores["loss"].map(math.isfinite).all()
    trained = scores[scores["moment"].isin(("epoch", "finetuned")) & (scores["split"] != "test")]
    if set(trained["model"]) == {"personal", "model"}:  # ours: the personal model takes no steps
        assert trained.loc[trained["model"] == "personal", "train_loss"].isna().all()
        trained = trained[trained["model"] == "model"]
    assert len(trained) > 0
    assert trained["train_loss"].map(math.isfinite).all()


@pytest.mark.parametrize("task", ["classification", "segmentation", "volumes"])
@pytest.mark.parametrize("method", methods())
def test_every_method_on_every_task(
    method: str, task: str, tasks: dict[str, Federation], tmp_path: Path
) -> None:
    options = SMALL | (LABEL if task == "classification" else PIXELS)
    result = counterpoint.run(method, tasks[task], out=tmp_path / "run", settings=options)
    assert_whole(result, "macro_f1" if task == "classification" else "dice")
    shape = (1, 16, 16, 16) if task == "volumes" else (3, 16, 16)
    model = result.model(None if method == "pooled" else "single")
    outputs = model(torch.rand(2, *shape))
    assert outputs.shape == ((2, 2) if task == "classification" else (2, 2, *shape[1:]))


@pytest.mark.parametrize("task", ["segmentation", "volumes"])
@pytest.mark.parametrize("method", ["prrfl-journal", "harmofl", "moon"])
def test_the_unet(method: str, task: str, tasks: dict[str, Federation], tmp_path: Path) -> None:
    options = SMALL | UNET | ({"distillation": "mse"} if method == "prrfl-journal" else {})
    result = counterpoint.run(method, tasks[task], out=tmp_path / "run", settings=options)
    assert_whole(result, "dice")


@pytest.mark.parametrize("method", methods())
def test_every_method_without_batch_norm(
    method: str, tasks: dict[str, Federation], tmp_path: Path
) -> None:
    options = SMALL | LABEL | {"model": "tests.networks:NoNorm", "finetune_epochs": 1}
    data = tasks["classification"]
    result = counterpoint.run(method, data, out=tmp_path / "run", settings=options)
    assert_whole(result, "macro_f1")
    assert set(result.scores["moment"]) >= {"start", "epoch", "merged", "finetuned"}


@pytest.mark.parametrize("method", [name for name in methods() if name not in ("pooled", "local")])
def test_a_site_that_is_absent(method: str, tasks: dict[str, Federation], tmp_path: Path) -> None:
    """Two of three sites take part in a round; 'large' is absent at first and trains in round 2."""
    options = {"rounds": 3, "local_epochs": 2, "participation": 0.5}

    def late(seed: int) -> bool:
        settings = make_settings(method, "x", options | {"seed": seed})
        first, second = (taking_part([None] * 3, settings, round) for round in (1, 2))  # type: ignore[list-item]
        return first == [1, 2] and 0 in second

    options |= TINY | LABEL | {"seed": next(seed for seed in range(99) if late(seed))}
    if method == "prrfl-journal":
        options |= {"warm_up": 1}
    data = tasks["classification"]
    result = counterpoint.run(method, data, out=tmp_path / "run", settings=options)
    assert_whole(result, "macro_f1")
    epochs = result.scores.query("moment == 'epoch'")
    there = [set(epochs[epochs["round"] == round]["site"]) for round in (1, 2, 3)]
    assert [len(sites) for sites in there] == [2, 2, 2]
    assert "large" not in there[0]
    assert "large" in there[1]
    if "global" in {file.stem for file in (result.path / "models").iterdir()}:
        weights = [result.model(site).state_dict() for site in SITES]
        for name, tensor in weights[0].items():
            if tensor.is_floating_point():
                assert all(torch.equal(tensor, other[name]) for other in weights[1:]), name


@pytest.mark.parametrize("method", ["fedavg", "prrfl"])
def test_a_balanced_loss_at_a_site_that_is_held_out(
    method: str, flat: Path, tmp_path: Path
) -> None:
    options = SMALL | LABEL | {"loss": "balanced", "holdout": "middle", "protocol": "given"}
    result = counterpoint.run(method, flat, out=tmp_path / "run", settings=options)
    assert math.isfinite(result.table["loss"]["middle"])


SHORT = ["--rounds", 1, "--local-epochs", 1, "--batch-size", 4, "--image-size", 16, "--workers", 1]
SHORT += ["--protocol", "given", "--model", "tests.networks:Tiny", "--model-options", "{}"]


@pytest.mark.parametrize(
    ("method", "words", "sent"),
    [
        ("fedavg", "--local deputy --aggregation all", {"head.weight", "features.1.weight"}),
        ("prrfl", "--aggregation head", {"head.weight"}),
        ("prrfl", "--harmonise amplitude --perturbation 0.05", {"harmonise.amplitude"}),
        ("fedbn", "--local proximal --server yogi --set mu=0.1", {"features.0.weight"}),
        ("fedavg", "--aggregation normalised --server normalised", {"direction.head.bias"}),
        ("moon", "--local control-variates --server control", {"local.control.network.head.bias"}),
        ("fedadam", "--aggregation backbone --local alternating", {"features.3.weight"}),
    ],
)
def test_compositions_from_the_command_line(
    method: str, words: str, sent: set[str], flat: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, _, err = call("run", method, flat, *SHORT, *words.split(), "--out", out)
    assert code == 0, err
    result = counterpoint.Result(out)
    assert_whole(result, "macro_f1")
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    given = dict(zip(words.split()[::2], words.split()[1::2], strict=True))
    for part in CHOICES:
        kind = given.get(f"--{part}", getattr(find_method(method), part).kind)
        assert settings[part]["kind"] == kind
    log = (out / "payloads.csv").read_text()
    assert all(f",up,{name}," in log for name in sent)


@pytest.mark.parametrize(
    ("method", "words", "expected"),
    [
        ("prrfl", "--server adam", "server 'adam' moves whole weights, which aggregation 'pfa'"),
        ("fedavg", "--aggregation pfa --server momentum", "use --server mean, or --aggregation"),
        ("fedyogi", "--aggregation none", "aggregation 'none' does not send"),
        ("scaffold", "--aggregation pfa", "server 'control' moves whole weights"),
        ("fednova", "--server adam", "use --aggregation normalised --server normalised"),
        ("fednova", "--server mean", "not aggregation 'normalised' with server 'mean'"),
        ("fedavg", "--server normalised", "not aggregation 'all' with server 'normalised'"),
        ("scaffold", "--server mean", "not local 'control-variates' with server 'mean'"),
        ("fedprox", "--server control", "use --local control-variates --server control, or neith"),
        ("scaffold", "--optimizer adam", "use --optimizer sgd"),
        ("scaffold", "--set weighting=closeness", "the same weight for a site in every round"),
        (
            "scaffold",
            "--set weighting=images --participation 0.5",
            "use --set weighting=equal, or --participation 1",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    method: str, words: str, expected: str, tmp_path: Path
) -> None:
    code, _, err = call("run", method, "phantom", *words.split(), "--out", tmp_path / "run")
    assert code == 2
    assert expected in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


def test_which_aggregations_fit_a_server_optimiser(tmp_path: Path) -> None:
    fitting = set()
    for server in ("momentum", "adam", "yogi", "adagrad"):
        for aggregation in AGGREGATIONS:
            try:
                make_settings("fedavg", "x", {"server": server, "aggregation": aggregation})
            except SettingsError:
                continue
            fitting.add(aggregation)
    assert fitting == {"all", "except-normalisation", "backbone", "head"}
    made = Method("mine", "none", "no", aggregation=ProgressiveFourier(), server=Adam())
    with pytest.raises(SettingsError, match="'pfa'"):
        counterpoint.run(made, "phantom", out=tmp_path / "run")


def test_the_list_of_methods_gives_the_options_that_make_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the list says of a method, said of FedAvg, has the same parts."""
    table = methods_table(list(methods()), "classification")
    names, compositions = (list(column.cells) for column in table.columns)
    assert names == list(methods())
    for name, composition in zip(names, compositions, strict=True):
        words = shlex.split(str(composition).replace("(pooled)", ""))
        options = dict(zip(words[::2], words[1::2], strict=True))
        changes = {word.removeprefix("--").replace("-", "_"): v for word, v in options.items()}
        assigned, _, value = str(changes.pop("set", "seed=1")).partition("=")
        changes[assigned] = value
        found = make_settings("fedavg", "x", {n: yaml.safe_load(v) for n, v in changes.items()})
        method, wanted = found.method, find_method(name)
        for part in CHOICES:
            assert getattr(method, part).kind == getattr(wanted, part).kind, name
        for part in ("perturbation", "adaptive", "statistics"):
            assert getattr(method, part) == getattr(wanted, part), name
        for part in ("loss", "weighting", "finetune_epochs"):
            assert getattr(method.schedule, part) == getattr(wanted.schedule, part), name
        assert ("(pooled)" in str(composition)) is wanted.pooled
    _, shown, _ = call("methods")
    shown = " ".join(shown.split())
    assert "prrfl --local deputy --aggregation pfa --statistics local" in shown
    assert set(SERVER_UPDATES) - {"mean"} <= {w for w in shown.split() if w in SERVER_UPDATES}
