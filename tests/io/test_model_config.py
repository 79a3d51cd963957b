"""`config.json`: read strictly, every refusal names the file and what was expected."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilens.base.errors import CheckpointError
from bilens.base.files import read_json
from bilens.io.model_config import ModelConfig, config_of, parse_config
from models import CLASSIFIER_CONFIG, make
from raising import raising

PATH = Path("folder/config.json")


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = copy.deepcopy(CLASSIFIER_CONFIG)
    change(content)
    return content


def test_a_good_config_is_read() -> None:
    content = changed(lambda c: c.update(input_shape=[2, 3], output_names=["a", "b", "c"]))
    config = parse_config(PATH, content)
    assert config == ModelConfig(
        "BilinearClassifier", CLASSIFIER_CONFIG["arguments"], (2, 3), ("a", "b", "c")
    )
    assert json.loads(config.to_json()) == content


def test_what_is_written_is_what_is_read() -> None:
    config = config_of(make("MLP", bias=True, gate="silu"))
    assert parse_config(PATH, json.loads(config.to_json())) == config


def test_the_hash_covers_the_function_and_not_its_description() -> None:
    plain = config_of(make())
    named = ModelConfig(plain.class_name, plain.arguments, (2, 3), ("a", "b", "c"))
    assert plain.function_sha256() == named.function_sha256()
    others = [config_of(make(gate="relu")), config_of(make("residual classifier"))]
    assert len({config.function_sha256() for config in (plain, *others)}) == 3


EXPECTED = "expected format, format_version, class, arguments and optionally input_shape, input_n"
BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no format": (lambda c: c.pop("format"), rf"config\.json: missing 'format'; {EXPECTED}"),
    "no arguments": (lambda c: c.pop("arguments"), r"json: missing 'arguments'; exp"),
    "nothing": (lambda c: c.clear(), r"missing 'arguments', 'class', 'format', 'format_v"),
    "a typo": (lambda c: c.update(ouput_names=[]), r"json: unexpected 'ouput_names'; "),
    "code": (lambda c: c.update(auto_map={"x": "y"}), r"unexpected 'auto_map'"),
    "another format": (lambda c: c.update(format="gguf"), "has format 'gguf' version 1; expected"),
    "format is a list": (lambda c: c.update(format=[]), r"has format \[\] version 1; expected"),
    "a future version": (lambda c: c.update(format_version=2), "reads up to 1: upgrade with `pip"),
    "a far future": (lambda c: c.update(format_version=10**30), "reads up to 1: upgrade with"),
    "version 0": (lambda c: c.update(format_version=0), "version 0; expected 'bilens-model' ver"),
    "version is a text": (lambda c: c.update(format_version="1"), "version '1'; expected"),
    "version is true": (lambda c: c.update(format_version=True), "version True; expected"),
    "version is a float": (lambda c: c.update(format_version=1.0), "version 1.0; expected"),
    "version is null": (lambda c: c.update(format_version=None), "version None; expected"),
    "another class": (
        lambda c: c.update({"class": "os.system"}),
        "describes the class 'os.system'; expected one of BilinearClassifier, BilinearLayer",
    ),
    "class is a list": (lambda c: c.update({"class": ["BilinearMLP"]}), "describes the class"),
    "class is an object": (lambda c: c.update({"class": {}}), "describes the class {}"),
    "class is null": (lambda c: c.update({"class": None}), "describes the class None"),
    "arguments are a list": (lambda c: c.update(arguments=[6, 4, 3]), "an object of arguments"),
    "arguments are null": (lambda c: c.update(arguments=None), "an object of arguments"),
    "shape is a number": (lambda c: c.update(input_shape=6), "input_shape is 6; .* list of integ"),
    "shape of texts": (lambda c: c.update(input_shape=["6"]), r"input_shape is \['6'\]; expected"),
    "shape of floats": (lambda c: c.update(input_shape=[6.0]), r"input_shape is \[6.0\]"),
    "shape of truths": (lambda c: c.update(input_shape=[True, 6]), r"input_shape is \[True, 6\]"),
    "names are a text": (lambda c: c.update(output_names="abc"), "output_names is 'abc'; expected"),
    "names are numbers": (lambda c: c.update(output_names=[0, 1]), r"output_names is \[0, 1\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_config_is_refused(name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(CheckpointError, match=message) as caught:
        parse_config(PATH, changed(change))
    assert str(caught.value).startswith(f"{PATH}: ")


BAD_ARGUMENTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "one is missing": lambda a: a.pop("d_hidden"),
    "one is unknown": lambda a: a.update(dropout=0.1),
    "one is called self": lambda a: a.update(self=1),
    "a width is a text": lambda a: a.update(d_hidden="4"),
    "a width is a float": lambda a: a.update(d_hidden=4.0),
    "a width is true": lambda a: a.update(d_hidden=True),
    "a width is null": lambda a: a.update(d_hidden=None),
    "a width is zero": lambda a: a.update(d_hidden=0),
    "a width is negative": lambda a: a.update(d_hidden=-4),
    "a width is a list": lambda a: a.update(d_hidden=[4]),
    "the layers are a text": lambda a: a.update(n_layers="1"),
    "the gate does not exist": lambda a: a.update(gate="tanh"),
    "the gate is a number": lambda a: a.update(gate=1),
    "the gate is a list": lambda a: a.update(gate=["relu"]),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_arguments_that_no_constructor_takes_are_refused(name: str) -> None:
    content = changed(lambda c: BAD_ARGUMENTS[name](c["arguments"]))
    with pytest.raises(CheckpointError, match=r"do not fit BilinearClassifier .*: restore") as bad:
        parse_config(PATH, content).build(PATH)
    assert str(bad.value).startswith(f"{PATH}: ")


TEXTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "cut off": (b'{"format": "bilens-mo', "is not valid JSON"),
    "not JSON": (b"format: bilens-model", "is not valid JSON .*: restore the file"),
    "two objects": (b"{} {}", "is not valid JSON"),
    "not UTF-8": (b'{"format": "\xff\xfe"}', "is not valid JSON"),
    "UTF-16": ('{"format": 1}'.encode("utf-16"), "is not valid JSON"),
    "with a byte order mark": (b"\xef\xbb\xbf{}", "is not valid JSON"),
    "a list": (b"[1, 2]", "holds a list; expected a JSON object"),
    "a number": (b"3", "holds a int; expected a JSON object"),
    "null": (b"null", "holds a NoneType; expected a JSON object"),
    "deeply nested lists": (b"[" * 100_000 + b"]" * 100_000, "is not valid JSON"),
    "deeply nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is not valid JSON"),
    "a number of 5000 digits": (b'{"format_version": ' + b"9" * 5000 + b"}", "is not valid JSON"),
    "huge": (b'{"a": "' + b"x" * (1 << 20) + b'"}', "is 1048585 bytes; at most 1048576 are read"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_no_small_json_object_is_refused(tmp_path: Path, name: str) -> None:
    content, message = TEXTS[name]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_and_a_folder_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file; a model folder needs it"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="is not a regular file; a model folder needs it"):
        read_json(tmp_path / "config.json")


def test_a_file_that_cannot_be_opened_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    monkeypatch.setattr(Path, "read_bytes", raising(PermissionError(13, "Permission denied")))
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\)"):
        read_json(path)
