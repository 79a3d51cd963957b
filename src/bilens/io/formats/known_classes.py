"""The classes that state dicts are known to be of: nothing is imported to say which."""

import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bilens.base.errors import CheckpointError, Retry, UsageError
from bilens.base.files import read_json
from bilens.io.formats.families import FAMILIES, WITH_IMAGES
from bilens.io.loaded_model import CONFIG_NAME, ReadOptions

Shapes = Mapping[str, tuple[int, ...]]
RUNS_CODE = "this imports the package and runs its code"
COUNTER = "num_batches_tracked"
# Classifiers of torchvision: name and shape of one of their tensors, then, of each, how many
# tensors there are, but for counters, and the name of the model.
TORCHVISION = """
features.0.weight 64 3 11 11: 16 alexnet
features.0.0.weight 96 3 4 4: 344 convnext_small 182 convnext_tiny 353 swin_s 185 swin_t
features.conv0.weight 64 3 7 7: 606 densenet121 846 densenet169 1006 densenet201
features.0.0.weight 32 3 3 3: 311 efficientnet_b0 262 mobilenet_v2
features.0.0.weight 16 3 3 3: 266 mobilenet_v3_large 210 mobilenet_v3_small
layer1.0.conv2.weight 64 64 3 3: 522 resnet101 777 resnet152 102 resnet18 182 resnet34 267 resnet50
layer1.0.conv2.weight 128 4 3 3: 267 resnext50_32x4d
features.0.weight 96 3 7 7: 52 squeezenet1_0
features.0.weight 64 3 3 3: 52 squeezenet1_1 22 vgg11 54 vgg11_bn 26 vgg13 66 vgg13_bn 32 vgg16
features.0.weight 64 3 3 3: 84 vgg16_bn 38 vgg19 102 vgg19_bn
conv_proj.weight 768 3 16 16: 152 vit_b_16
conv_proj.weight 768 3 32 32: 152 vit_b_32
conv_proj.weight 1024 3 16 16: 296 vit_l_16
layer1.0.conv2.weight 128 128 3 3: 267 wide_resnet50_2
"""
CLASSES = 1000  # that these have if nobody says another number
HEADS = ("fc.", "heads.head.", "head.", "classifier.")


def class_of(path: Path, shapes: Shapes) -> str:
    """Return the class of an installed package that tensors belong to; empty for none known."""
    content = config_beside(path)
    if (named := content.get("architectures")) and "auto_map" not in content:
        found = is_in_transformers(named[0], str(content.get("model_type")), shapes)
        return f"transformers.{named[0]}" if found else ""
    if find_spec("torchvision") is None:
        return ""
    count = str(sum(COUNTER not in name for name in shapes))
    for line in TORCHVISION.split("\n")[1:-1]:
        key, models = line.split(":")
        name, *sides = key.split()
        known = dict(zip(*[iter(models.split())] * 2, strict=True))
        if shapes.get(name) == tuple(map(int, sides)) and count in known:
            heads = [one[0] for n, one in shapes.items() if n.startswith(HEADS) and len(one) > 1]
            say = f"(num_classes={heads[-1]})" if heads and heads[-1] != CLASSES else ""
            return f"torchvision.models.{known[count]}{say}"
    return ""


def is_in_transformers(name: str, family: str, shapes: Shapes) -> bool:
    """Tell whether the code of a family has a class, and the parts that tensors are in.

    It is read as a text: nothing is imported.
    """
    spec, family = find_spec("transformers"), family.replace("-", "_")
    if spec is None or spec.origin is None or not family.isidentifier():
        return False
    code = Path(spec.origin).parent / "models" / family / f"modeling_{family}.py"
    text = code.read_text("utf-8", "replace") if code.is_file() else ""
    parts = {*re.findall(r"self\.(\w+) *=", text)}
    firsts = {key.partition(".")[0] for key in shapes}
    return firsts <= parts and re.search(rf"^class {re.escape(name)}\b", text, re.M) is not None


def config_beside(path: Path) -> dict[str, Any]:
    """Return the `config.json` of a folder, or beside a file; empty where there is none."""
    with suppress(CheckpointError):
        return read_json((path if path.is_dir() else path.parent) / CONFIG_NAME)
    return {}


def told_with_class(
    error: CheckpointError | UsageError,
    path: Path,
    shapes: Shapes,
    options: ReadOptions,
    pickled: bool,
) -> CheckpointError | UsageError:
    """Return an error that also names the class that the tensors belong to, where it is known."""
    if path.is_file() and config_beside(path).get("model_type") in {*FAMILIES, *WITH_IMAGES}:
        said = " The folder that it lies in is a model that is read as a whole."
        retries = [Retry(str(path), path=str(path.parent)), *error.retries]
        return type(error)(error.sentence + said, retries)
    if not (name := class_of(path, shapes)):
        return error
    said = f" Its tensors have the names of {name}, which can be built: {RUNS_CODE}."
    told = {**options.given_options(), **({"allow_pickle": True} if pickled else {})}
    retry = Retry(str(path), {**told, "module_class": name})
    return type(error)(error.sentence + said, [retry, *error.retries])
