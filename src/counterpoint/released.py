"""Models that the papers' released scripts have left, made into models of ours.

A checkpoint is a Python pickle. It is read with PyTorch's ``weights_only``, so that nothing in it
is executed. Its tensors get our names, and what else a prediction depends on goes to the card: the
range of the inputs (-1..1 in PRR-FL; 0..1 for HarmoFL's histology, 0..255 for its prostate), where
batch norm's statistics come from (running ones in PRR-FL, in HarmoFL always those of the batch)
and the amplitude normalisation, of which the released HarmoFL computes the zero frequency only.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoint.data.site import Form
from counterpoint.errors import SettingsError, StateError, nearest
from counterpoint.files import write_tensors
from counterpoint.harmonise import AmplitudeLayer, AmplitudeNormalisation, Harmoniser, NoHarmoniser
from counterpoint.models import densenet121, slim_vgg16, unet
from counterpoint.predictor import INPUT_RANGE, Predictor, model_card
from counterpoint.statistics import Statistics, drop_running_statistics

SOURCES = {"prrfl": "PRR-FL", "harmofl": "HarmoFL"}
CHANNELS = 3
AMPLITUDE = "amp_norm.running_amp"
SITES = "ABCD"


@dataclass(frozen=True)
class Released:
    """A model as a script has left it, in our terms; ``size`` is None where nothing says it."""

    model: str
    options: Mapping[str, Any]
    network: nn.Module
    classes: tuple[str, ...]
    size: int | None
    harmonise: Harmoniser
    statistics: Statistics
    input_range: tuple[float, float]
    amplitude: Tensor | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


def import_checkpoint(
    path: str | Path,
    source: str,
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
) -> Path:
    """Make a released script's checkpoint into a model that `counterpoint.load_model` reads.

    Args:
        path: of PRR-FL a ``save_valid_client0_model-...pth`` or ``save_end_client0_model-...pth``,
            a client's personal model; of HarmoFL ``HarmoFL`` or ``HarmoFL_latest``, of which the
            server's model is taken (DenseNet121 or U-Net).
        source: "prrfl" or "harmofl".
        out: the file to write, such as ``model.safetensors``; it must not exist.
        classes: names of the outputs, in order; the paper's where left out.
        image_size: side in pixels of a PRR-FL model's images, 128 where left out. A HarmoFL file
            says its own.

    Returns:
        ``out``.

    Raises:
        StateError: if the file can't be read, needs code to be executed, is no checkpoint of the
            source or was never trained, or if ``out`` can't be written.
        SettingsError: if source, classes or size don't fit, or if ``out`` exists.
    """
    path, out = Path(path), Path(out)
    if source not in SOURCES:
        hint = nearest(source, list(SOURCES))
        raise SettingsError(f"unknown source '{source}'{hint}; known are {', '.join(SOURCES)}")
    if image_size is not None and image_size < 32:
        raise SettingsError(f"image_size is {image_size}; it must be 32 or more")
    if out.exists():
        raise SettingsError(f"{out} exists already; choose another file for --out")
    content = read_checkpoint(path)
    marks = {"prrfl": "layer1.0.conv.weight", "harmofl": "server_model"}
    other = next((name for name in SOURCES if name != source and marks[name] in content), None)
    if other:
        raise StateError(
            f"{path} is a checkpoint of {SOURCES[other]}: import it with --from {other}"
        )
    found = _prrfl(path, content) if source == "prrfl" else _harmofl(path, content)
    names = found.classes if classes is None else tuple(classes)
    if len(set(names)) < len(names) or not all(names):
        raise SettingsError(f"--classes {','.join(names)}: every class needs a name of its own")
    outputs = list(found.network.state_dict().values())[-1].shape[0]
    if len(names) != outputs:
        raise SettingsError(
            f"{path} has {outputs} outputs, and there are {len(names)} names of classes "
            f"({', '.join(names)}); name each with --classes"
        )
    size = found.size or image_size or 128
    if image_size not in (None, size):
        raise SettingsError(f"{path} takes images of {size}x{size} pixels, not {image_size}")
    shape = (CHANNELS, size, size)
    layer = found.harmonise.layer(shape)
    if isinstance(layer, AmplitudeLayer) and found.amplitude is not None:
        layer.amplitude.copy_(found.amplitude)
        layer.ready.fill_(True)
        layer.freeze()
    predictor = Predictor(layer, found.network, found.input_range)
    card = model_card(
        found.model,
        found.options,
        "segmentation" if found.model == "unet" else "classification",
        names,
        shape,
        found.harmonise,
        found.statistics,
        input_range=found.input_range,
        # HarmoFL's U-Net was trained on a slice and its neighbours; photographs have none
        form=asdict(Form(neighbours=found.model == "unet")),
        method=source,
        imported_from=path.name,
        **found.facts,
    )
    write_tensors(out, predictor.state_dict(), card)
    return out


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a file of ``torch.save`` that holds tensors and plain values by name.

    Nothing is executed. (PyTorch could be tricked into it before 2.6, which is asked for.)

    Raises:
        StateError: if the file can't be read or needs more than that.
    """
    if torch.__version__ < (2, 6):  # type: ignore[operator]
        raise StateError("reading a checkpoint safely needs PyTorch 2.6 or newer; please update")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StateError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a file that is none may lead to
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise StateError(
                f"{path} can't be imported: it needs {wanted[1]}, and nothing in a checkpoint is "
                "executed here. If you trust it, save its state_dict() anew where it was made"
            ) from error
        raise StateError(f"{path} is damaged, or no checkpoint of PyTorch") from error
    if not isinstance(content, Mapping):
        raise StateError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return content


def _prrfl(path: Path, state: Mapping[str, Any]) -> Released:
    """A client's personal model: the script saves the state of its network as it is."""
    bias = "fc2.linear.bias" in state
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layers = [
        (f"layer{number}.{index}", "conv")
        for number, block in enumerate(slim_vgg16.BLOCKS, start=1)
        for index in range(len(block))
    ]
    names = [
        f"{layer}.{name}"
        for layer, kind in (*layers, ("fc1", "linear"))
        for name in (f"{kind}.weight", *(f"bn.{tensor}" for tensor in batch_norm))
    ]
    names += ["fc2.linear.weight", "fc2.linear.bias"][: 1 + bias]
    _check_names(path, state, names, "prrfl")
    if not state["layer1.0.bn.num_batches_tracked"].any():
        raise StateError(
            f"{path} was never trained: the script saves its server model as it began. Import a "
            "client's, such as save_valid_client0_model-....pth"
        )
    network = slim_vgg16.SlimVGG16(_first_axis(state["fc2.linear.weight"]), bias=bias)
    _fill(path, network, state, names)
    said = re.search(r"client(\d)_model(?:.*-iters-(\d+))?", path.name)
    facts: dict[str, object] = {}
    if said and int(said[1]) < len(SITES):
        facts["site"] = SITES[int(said[1])]
    if said and said[2]:
        facts["round"] = int(said[2]) + 1
    return Released(
        model="slim-vgg16",
        options={"bias": True} if bias else {},
        network=network,
        classes=("nevus", "benign keratosis", "melanoma"),
        size=None,
        harmonise=NoHarmoniser(),
        statistics="local",
        input_range=INPUT_RANGE,
        facts=facts,
    )


def _harmofl(path: Path, checkpoint: Mapping[str, Any]) -> Released:
    """The server's model, beside which the script saves optimisers, round and scores."""
    state = checkpoint.get("server_model")
    if not isinstance(state, Mapping):
        raise StateError(f"{path} is no checkpoint of HarmoFL: it has no server_model")
    dense = "features.conv0.weight" in state
    names = _densenet_names() if dense else _unet_names()
    _check_names(path, state, [*names, AMPLITUDE], "harmofl")
    spectrum = state[AMPLITUDE].float()
    if spectrum.dim() != 3 or len(spectrum) != CHANNELS or spectrum.shape[1] != spectrum.shape[2]:
        raise StateError(
            f"{path}: {AMPLITUDE} has shape {tuple(spectrum.shape)}; it must be that of square "
            f"images of {CHANNELS} channels"
        )
    if not spectrum.any():
        raise StateError(
            f"{path}: {AMPLITUDE} is all zero, so the model was never trained, or by a version of "
            "the script that left amplitude normalisation out"
        )
    options: dict[str, Any] = {"affine": False}
    network: nn.Module
    if dense:
        network = densenet121.DenseNet121(_first_axis(state["classifier.bias"]), affine=False)
    else:
        features = _first_axis(state["encoder1.enc1_conv1.weight"])
        options |= {"features": features} if features != 32 else {}
        network = unet.UNet(CHANNELS, _first_axis(state["conv.bias"]), features, affine=False)
    drop_running_statistics(network)
    _fill(path, network, state, names)
    high = 1.0 if dense else 255.0  # the script feeds prostate images as they are
    rounds = checkpoint.get("a_iter")
    return Released(
        model="densenet121" if dense else "unet",
        options=options,
        network=network,
        classes=("normal", "tumour") if dense else ("background", "prostate"),
        size=spectrum.shape[-1],
        harmonise=AmplitudeNormalisation(band="dc", momentum=0.0),
        statistics="batch",
        input_range=(0.0, high),
        amplitude=spectrum[:, 0, 0] / high,
        facts={"batch_size": 128 if dense else 16}  # as scored by the script, each with its batch
        | ({"round": rounds + 1} if isinstance(rounds, int) else {}),
    )


def _densenet_names() -> list[str]:
    """Names of the released DenseNet121's tensors, in the order of ours."""
    names = ["conv0"]
    for block, depth in enumerate(densenet121.BLOCKS, start=1):
        if block > 1:
            names.append(f"transition{block - 1}.conv")
        for layer in range(1, depth + 1):
            names += [f"denseblock{block}.denselayer{layer}.conv{number}" for number in (1, 2)]
    weights = [f"features.{name}.weight" for name in names]
    return [*weights, "classifier.weight", "classifier.bias"]


def _unet_names() -> list[str]:
    """Names of the released U-Net's tensors, in the order of ours."""
    levels = range(1, unet.LEVELS + 1)
    down = [*(f"encoder{n}.enc{n}" for n in levels), "bottleneck.bottleneck"]
    up = [f"upconv{n}.{tensor}" for n in reversed(levels) for tensor in ("weight", "bias")]
    merge = [f"decoder{n}.dec{n}" for n in reversed(levels)]

    def convolutions(blocks: list[str]) -> list[str]:
        return [f"{block}_conv{number}.weight" for block in blocks for number in (1, 2)]

    return [*convolutions(down), *up, *convolutions(merge), "conv.weight", "conv.bias"]


def _check_names(path: Path, state: Mapping[str, Any], names: Sequence[str], source: str) -> None:
    """Raise StateError unless the state has these tensors and no others, all finite."""
    wrong = [f"it has no {name}" for name in names if name not in state]
    wrong += [f"its network has no {name}" for name in state if name not in names]
    wrong += [f"{name} is no tensor" for name in names if not isinstance(state.get(name), Tensor)]
    if wrong:
        raise StateError(f"{path} is no checkpoint of {SOURCES[source]}: {'; '.join(wrong[:3])}")
    for name in names:
        if not state[name].isfinite().all():
            raise StateError(f"{path}: {name} is not finite, so the training had failed")


def _first_axis(tensor: Tensor) -> int:
    """Length of the first axis; 1 where there is none, which then fits nothing."""
    return tensor.shape[:1].numel()


def _fill(
    path: Path, network: nn.Module, state: Mapping[str, Tensor], names: Sequence[str]
) -> None:
    """Put the tensors of these names, in order, into the network's state."""
    own = network.state_dict()
    for mine, theirs in zip(own, names, strict=True):
        if own[mine].shape != state[theirs].shape:
            raise StateError(
                f"{path}: {theirs} has shape {tuple(state[theirs].shape)}, and the network needs "
                f"{tuple(own[mine].shape)}"
            )
    network.load_state_dict({m: state[t] for m, t in zip(own, names, strict=True)})
