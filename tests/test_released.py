"""Checkpoints of the released scripts: what they predict is worked out here from their tensors."""

import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoint.errors import SettingsError, StateError
from counterpoint.files import read_tensors
from counterpoint.predictor import Predictor, load_model
from counterpoint.released import import_checkpoint

State = dict[str, Tensor]
VGG = {1: (32, 32), 2: (64, 64), 3: (128,) * 3, 4: (128,) * 3, 5: (256,) * 3}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def drawn(*shape: int) -> Tensor:
    """Weights of a size that keeps activations near 1."""
    return torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:]))


def vgg_state(bias: bool = False) -> State:
    """A trained network's state, in the names and the order of the script."""
    state: State = {}

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = torch.rand(width) + 0.5
        state[f"{name}.bias"] = torch.randn(width) / 10
        state[f"{name}.running_mean"] = torch.randn(width) / 10
        state[f"{name}.running_var"] = torch.rand(width) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    width = 3
    for block, outs in VGG.items():
        for index, out in enumerate(outs):
            state[f"layer{block}.{index}.conv.weight"] = drawn(out, width, 3, 3)
            norm(f"layer{block}.{index}.bn", out)
            width = out
    state["fc1.linear.weight"] = drawn(64, 256)
    norm("fc1.bn", 64)
    state["fc2.linear.weight"] = drawn(3, 64)
    if bias:
        state["fc2.linear.bias"] = torch.randn(3)
    return state


def vgg_logits(state: State, images: Tensor) -> Tensor:
    """What the script's network gives for images in 0..1."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        s = [state[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *s))

    x = (images.double() - 0.5) / 0.5
    for block, outs in VGG.items():
        for index in range(len(outs)):
            x = F.conv2d(x, state[f"layer{block}.{index}.conv.weight"], padding=1)
            x = norm(x, f"layer{block}.{index}.bn")
        x = F.max_pool2d(x, 2)
    x = norm(F.linear(x.mean((2, 3)), state["fc1.linear.weight"]), "fc1.bn")
    return F.linear(x, state["fc2.linear.weight"], state.get("fc2.linear.bias"))


def dense_state(size: int = 32) -> State:
    state = {
        "amp_norm.running_amp": torch.rand(3, size, size) * size,
        "features.conv0.weight": drawn(64, 3, 7, 7),
    }
    state["amp_norm.running_amp"][:, 0, 0] = torch.tensor([0.4, 0.5, 0.6]) * size**2
    width = 64
    for block, depth in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            state[f"{name}.conv1.weight"] = drawn(128, width, 1, 1)
            state[f"{name}.conv2.weight"] = drawn(32, 128, 3, 3)
            width += 32
        if block < 4:
            state[f"features.transition{block}.conv.weight"] = drawn(width // 2, width, 1, 1)
            width //= 2
    return state | {"classifier.weight": drawn(2, width) / 2, "classifier.bias": torch.randn(2)}


def same_amplitude_at_zero(images: Tensor, amplitude: Tensor) -> Tensor:
    """The released amplitude normalisation: only the zero frequency is replaced."""
    spectrum = np.fft.fft2(images.double().numpy())
    size = np.abs(spectrum)
    size[:, :, 0, 0] = amplitude[:, 0, 0].double().numpy()
    return torch.from_numpy(np.real(np.fft.ifft2(size * np.exp(1j * np.angle(spectrum)))))


def normal(x: Tensor) -> Tensor:
    """Batch norm by the batch, without scale and shift, and ReLU."""
    return F.relu(F.batch_norm(x, None, None, training=True))


def dense_logits(state: State, images: Tensor) -> Tensor:
    x = same_amplitude_at_zero(images, state["amp_norm.running_amp"])
    state = {name: tensor.double() for name, tensor in state.items()}
    x = F.conv2d(x, state["features.conv0.weight"], stride=2, padding=3)
    x = F.max_pool2d(normal(x), 3, stride=2, padding=1)
    for block, depth in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            new = F.conv2d(normal(x), state[f"{name}.conv1.weight"])
            new = F.conv2d(normal(new), state[f"{name}.conv2.weight"], padding=1)
            x = torch.cat([x, new], 1)
        if block == 1:
            x = F.pad(x, (2, 2, 2, 2))
        if block < 4:
            x = F.conv2d(normal(x), state[f"features.transition{block}.conv.weight"])
            x = F.avg_pool2d(x, 2)
    return F.linear(normal(x).mean((2, 3)), state["classifier.weight"], state["classifier.bias"])


def unet_state(features: int, size: int = 32) -> State:
    state = {"amp_norm.running_amp": torch.rand(3, size, size) * size * 255}
    state["amp_norm.running_amp"][:, 0, 0] = torch.tensor([80.0, 90, 100]) * size**2

    def block(name: str, short: str, inputs: int, outputs: int) -> None:
        state[f"{name}.{short}_conv1.weight"] = drawn(outputs, inputs, 3, 3)
        state[f"{name}.{short}_conv2.weight"] = drawn(outputs, outputs, 3, 3)

    f, width = features, 3
    for n in (1, 2, 3, 4):
        block(f"encoder{n}", f"enc{n}", width, f * 2 ** (n - 1))
        width = f * 2 ** (n - 1)
    block("bottleneck", "bottleneck", width, 2 * width)
    for n in (4, 3, 2, 1):
        width = f * 2 ** (n - 1)
        state[f"upconv{n}.weight"] = drawn(2 * width, width, 2, 2)
        state[f"upconv{n}.bias"] = torch.randn(width)
        block(f"decoder{n}", f"dec{n}", 2 * width, width)
    return state | {"conv.weight": drawn(2, f, 1, 1), "conv.bias": torch.randn(2)}


def unet_logits(state: State, images: Tensor) -> Tensor:
    x = same_amplitude_at_zero(images * 255, state["amp_norm.running_amp"])
    state = {name: tensor.double() for name, tensor in state.items()}

    def block(x: Tensor, name: str) -> Tensor:
        for number in (1, 2):
            x = normal(F.conv2d(x, state[f"{name}_conv{number}.weight"], padding=1))
        return x

    kept = {}
    for n in (1, 2, 3, 4):
        kept[n] = block(x, f"encoder{n}.enc{n}")
        x = F.max_pool2d(kept[n], 2)
    x = block(x, "bottleneck.bottleneck")
    for n in (4, 3, 2, 1):
        up = F.conv_transpose2d(x, state[f"upconv{n}.weight"], state[f"upconv{n}.bias"], stride=2)
        x = block(torch.cat([up, kept[n]], 1), f"decoder{n}.dec{n}")
    return F.conv2d(x, state["conv.weight"], state["conv.bias"])


def harmofl_checkpoint(state: State) -> dict[str, object]:
    """What the script saves beside the server's model, as it does."""
    groups = [{"lr": 1e-3, "alpha": 0.05, "momentum": 0.9, "params": [0]}]
    optimiser = {"state": {0: {"delta": torch.ones(3)}}, "param_groups": groups}
    return {
        "server_model": state,
        "best_epoch": 11,
        "best_acc": [0.9, 0.95],
        "a_iter": 11,
        "optim_0": optimiser,
        "optim_1": optimiser,
    }


def assert_same(predictor: Predictor, images: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.05  # there is something to compare
    torch.testing.assert_close(predictor(images).double(), expected, atol=1e-4, rtol=0)
    # in double precision, so that what is left is no rounding
    found = predictor.double()(images.double())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_a_client_of_prrfl_predicts_as_it_did(tmp_path: Path, bias: bool) -> None:
    state, images = vgg_state(bias), torch.rand(2, 3, 128, 128)
    file = tmp_path / "save_valid_client2_model-F1-72.11-AUC-89.20-iters-49.pth"
    torch.save(state, file)
    out = import_checkpoint(file, "prrfl", tmp_path / "new" / "C.safetensors")
    predictor, card = load_model(out)
    assert_same(predictor, images, vgg_logits(state, images))
    assert card["classes"] == ["nevus", "benign keratosis", "melanoma"]
    assert (card["method"], card["site"], card["round"]) == ("prrfl", "C", 50)
    assert (card["shape"], card["statistics"]) == ([3, 128, 128], "local")
    assert card["imported_from"] == file.name


@pytest.mark.parametrize("name", ["save_end_client0_model-F1-1.00-AUC-2.00.pth", "mine.pth"])
def test_what_a_name_does_not_say_is_left_out(tmp_path: Path, name: str) -> None:
    torch.save(vgg_state(), tmp_path / name, _use_new_zipfile_serialization=False)
    names = ["nv", "bkl", "mel"]
    out = import_checkpoint(
        tmp_path / name, "prrfl", tmp_path / "m.safetensors", classes=names, image_size=256
    )
    _, card = load_model(out)
    assert "round" not in card
    assert card.get("site") == ("A" if "client0" in name else None)
    assert (card["classes"], card["shape"]) == (names, [3, 256, 256])


def test_a_densenet_of_harmofl_predicts_as_it_did(tmp_path: Path) -> None:
    state, images = dense_state(), torch.rand(6, 3, 32, 32)
    torch.save(harmofl_checkpoint(state), tmp_path / "HarmoFL_latest")
    out = import_checkpoint(tmp_path / "HarmoFL_latest", "harmofl", tmp_path / "m.safetensors")
    predictor, card = load_model(out)
    assert_same(predictor, images, dense_logits(state, images))
    assert (card["model"], card["model_options"]) == ("densenet121", {"affine": False})
    assert (card["statistics"], card["input_range"]) == ("batch", [0.0, 1.0])
    assert card["harmonise"] == {"kind": "amplitude", "band": "dc", "momentum": 0.0}
    assert (card["classes"], card["round"]) == (["normal", "tumour"], 12)
    assert card["batch_size"] == 128  # its statistics are those of a batch
    before = read_tensors(out)["harmonise.amplitude"]
    predictor.train()(images)  # the amplitude is fixed for good
    assert torch.equal(predictor.state_dict()["harmonise.amplitude"].float(), before)


@pytest.mark.parametrize("features", [4, 32])
def test_a_unet_of_harmofl_predicts_as_it_did(tmp_path: Path, features: int) -> None:
    state, images = unet_state(features), torch.rand(3, 3, 32, 32)
    torch.save(harmofl_checkpoint(state), tmp_path / "HarmoFL")
    out = import_checkpoint(tmp_path / "HarmoFL", "harmofl", tmp_path / "m.safetensors")
    predictor, card = load_model(out)
    assert (card["task"], card["input_range"]) == ("segmentation", [0.0, 255.0])
    assert ("features" in card["model_options"]) == (features == 4)
    assert card["classes"] == ["background", "prostate"]
    assert_same(predictor, images, unet_logits(state, images))


class Trap:
    """Would make a folder if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    for zipped in (True, False):
        file = tmp_path / f"trap{zipped}.pth"
        content = vgg_state() | {"x": Trap(tmp_path / "sprung")}
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        with pytest.raises(StateError, match=r"needs \w+.mkdir, and nothing .* is executed"):
            import_checkpoint(file, "prrfl", tmp_path / "m.safetensors")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(StateError, match=r"needs torch\.nn\.modules\.linear\.Linear"):
        import_checkpoint(tmp_path / "whole.pth", "prrfl", tmp_path / "m.safetensors")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".pth"] * 3


def no_checkpoints(folder: Path) -> Iterable[tuple[Path, str]]:
    """Files that are none, and what is said of them."""
    nonsense = {
        "text": b"hello, I am a text\n",
        "empty": b"",
        "image.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    for name, content in nonsense.items():
        (folder / name).write_bytes(content)
        yield folder / name, "damaged, or no checkpoint of PyTorch"
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        archive.writestr("a.txt", "x")
    yield folder / "zip", "damaged, or no checkpoint of PyTorch"
    torch.save(vgg_state(), folder / "whole")
    content = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(content[: len(content) // 2])
    yield folder / "cut", "damaged, or no checkpoint of PyTorch"
    torch.save([1, 2], folder / "list")
    yield folder / "list", "holds a list, not tensors by name"
    yield folder / "missing", "can't be read: No such file"
    yield folder, "can't be read: Is a directory"


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    for path, text in no_checkpoints(tmp_path):
        with pytest.raises(StateError, match=f"{re.escape(str(path))} .*{text}"):
            import_checkpoint(path, "harmofl", tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("source", "make", "text"),
    [
        (
            "prrfl",
            lambda: {"w": torch.ones(2)},
            "no checkpoint of PRR-FL: it has no layer1.0.conv.weight",
        ),
        ("prrfl", lambda: vgg_state() | {"more": torch.ones(1)}, "its network has no more"),
        (
            "prrfl",
            lambda: {**vgg_state(), "fc2.linear.weight": 3},
            "fc2.linear.weight is no tensor",
        ),
        (
            "prrfl",
            lambda: vgg_state() | {"layer1.0.bn.num_batches_tracked": torch.tensor(0)},
            "was never trained: the script saves its server model as it began",
        ),
        (
            "prrfl",
            lambda: vgg_state() | {"layer3.1.conv.weight": torch.ones(128, 64, 3, 3)},
            "layer3.1.conv.weight has shape .128, 64, 3, 3., and the network needs .128, 128",
        ),
        (
            "prrfl",
            lambda: vgg_state() | {"fc2.linear.weight": torch.tensor(1.0)},
            "has shape .., and the",
        ),
        (
            "prrfl",
            lambda: vgg_state() | {"fc1.bn.bias": torch.full((64,), math.nan)},
            "bias is not finite",
        ),
        ("harmofl", lambda: vgg_state(), "is a checkpoint of PRR-FL: import it with --from prrfl"),
        (
            "prrfl",
            lambda: harmofl_checkpoint(unet_state(2)),
            "is a checkpoint of HarmoFL: import it with --from harmofl",
        ),
        ("harmofl", lambda: {"model": 1}, "no checkpoint of HarmoFL: it has no server_model"),
        (
            "harmofl",
            lambda: {"server_model": {"a": torch.ones(1)}},
            "it has no encoder1.enc1_conv1.weight",
        ),
        (
            "harmofl",
            lambda: {
                "server_model": unet_state(2) | {"amp_norm.running_amp": torch.zeros(3, 32, 32)}
            },
            "running_amp is all zero, so the model was never trained",
        ),
        (
            "harmofl",
            lambda: {
                "server_model": unet_state(2) | {"amp_norm.running_amp": torch.ones(3, 32, 48)}
            },
            "running_amp has shape .3, 32, 48.; it must be that of square images",
        ),
    ],
)
def test_checkpoints_of_something_else(
    tmp_path: Path, source: str, make: Callable[[], object], text: str
) -> None:
    torch.save(make(), tmp_path / "file.pth")
    with pytest.raises(StateError, match=text):
        import_checkpoint(tmp_path / "file.pth", source, tmp_path / "m.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file.pth"]


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    file, out = tmp_path / "HarmoFL", tmp_path / "m.safetensors"
    torch.save(harmofl_checkpoint(unet_state(2)), file)
    with pytest.raises(SettingsError, match="unknown source 'harmfl'; did you mean 'harmofl'"):
        import_checkpoint(file, "harmfl", out)
    with pytest.raises(SettingsError, match=r"has 2 outputs, and there are 1 .*\(a\)"):
        import_checkpoint(file, "harmofl", out, classes=["a"])
    for names in (["a", "a"], ["a", ""]):
        with pytest.raises(SettingsError, match="every class needs a name of its own"):
            import_checkpoint(file, "harmofl", out, classes=names)
    with pytest.raises(SettingsError, match="takes images of 32x32 pixels, not 64"):
        import_checkpoint(file, "harmofl", out, image_size=64)
    with pytest.raises(SettingsError, match="image_size is 16; it must be 32 or more"):
        import_checkpoint(file, "harmofl", out, image_size=16)
    assert import_checkpoint(file, "harmofl", out, image_size=32) == out
    with pytest.raises(SettingsError, match="exists already"):
        import_checkpoint(file, "harmofl", out)
