"""Commands, options and help: a promise, and the same defaults as the library."""

from typing import Any

import pytest

from bilens.train.tasks.image import ImageRecipe
from bilens.version import VERSION
from commands import Shell, commands

# Commands and options may be added; none may be renamed or removed.
FROZEN = {
    "": "--quiet -q --verbose -v --version --install-completion --show-completion",
    "demo": "--out --data-dir --seed --lang --overwrite --json",
    "train": "",
    "train image": (
        "--track "
        "--out --dataset --data-dir --download --no-download --hidden --layers --bias --residual "
        "--gate --epochs --batch-size --learning-rate --weight-decay --noise --model-noise "
        "--dropout --augment --precision --device --seed --watch --stop --resume --overwrite --json"
    ),
    "train language": (
        "--track "
        "--corpus --out --column --split --limit --stream --held-out --corpus-seed --tokenizer "
        "--vocabulary --model-width --hidden --layers --heads --context-length --gate --mlp "
        "--polynomial --pairs --order-penalty --tied --epochs --steps --batch-size "
        "--learning-rate --schedule --warmup --weight-decay --clip --dropout --evaluations "
        "--precision --shard --texts-at-once --device --seed --resume --overwrite --json"
    ),
    "train table": (
        "--track "
        "data --target --out --task --drop --encoding --alpha --column-scale --quadratic-scale "
        "--components --test --device --seed --overwrite --json"
    ),
    "train sae": (
        "--track "
        "model --hook --out --corpus --column --limit --num-latents --k --sign --tokens "
        "--batch-size --buffer-size --learning-rate --schedule --warmup --auxiliary --dead-after "
        "--shard --device --seed --resume --overwrite --json"
    ),
    "inspect": "path --lang --json --no-code",
    "decompose": (
        "model --top --layer --outputs --basis --dataset --data-dir --reading --contrast --which "
        "--spectrum --null-samples --method --precision --verify --memory-limit --seed --out "
        "--plan --lang --map --activation --class --transposed --no-transposed --allow-pickle "
        "--trust-pickle --residual "
        "--no-residual --overwrite --json --data --table --labels "
        "--encoding --classes"
    ),
    "fit": (
        "model --encoding --layer --data --table --labels --dataset --data-dir --map --activation "
        "--class --transposed --no-transposed --text --tokens --held-out --activations "
        "--train-steps --samples --threshold --seed --lang --normalise --size --rows "
        "--allow-pickle --trust-pickle --residual --no-residual --json"
    ),
    "audit": (
        "model more --dataset --data-dir --table --html --pdf --markdown --evidence --lang "
        "--null-samples --history --baseline --fail-on --threshold --try-words --seed --map "
        "--activation --class "
        "--transposed --no-transposed --allow-pickle --trust-pickle --residual --no-residual "
        "--overwrite --json --data --labels --encoding --text --tokens --held-out --activations "
        "--train-data --train-labels --classes --normalise --size --rows --staged"
    ),
    "attack": (
        "model --dataset --data-dir --target --source --pairs --epsilon --html --lang --seed "
        "--allow-pickle "
        "--trust-pickle --residual --no-residual --overwrite --json --data --table --labels "
        "--encoding --classes"
    ),
    "certify": (
        "model --classes --dataset --data-dir --samples --truncate --radius --html --lang --seed "
        "--allow-pickle "
        "--trust-pickle --residual --no-residual --overwrite --json --data --table --labels "
        "--encoding"
    ),
    "trace": (
        "model --layer --input-sae --output-sae --corpus --column --limit --tokens --latent "
        "--toward --outputs --pairs --features --top --dictionaries --html --lang --graph --seed "
        "--overwrite --json --attention-sae --distance"
    ),
    "read": (
        "network --roles --probe --tokens --tokens-of --farthest --rules --samples --seed --html "
        "--lang --markdown --overwrite --json"
    ),
    "convert": (
        "--track "
        "model --to --out --text --measure --column --held-out --tokens --minutes --layers "
        "--keep --parallel --texts-at-once --recompute --passes --keep-worst --hidden-multiplier "
        "--linear-skip --unfreeze --layer-tokens --layer-steps --optimizer --learning-rate "
        "--context-length --skip --measured-tokens --seed --shard --device --resume --allow-pickle "
        "--trust-pickle --residual --no-residual --overwrite --json"
        " --map --activation --class --transposed --no-transposed --data --labels --dataset "
        "--data-dir --table --encoding --html --lang --classes"
    ),
    "push": (
        "model repository --public --message -m --report --license --dry-run --allow-pickle "
        "--trust-pickle --residual --no-residual --json"
    ),
    "serve": (
        "folder --host --open --no-open --port --allow-host --token-file --user-header --proxy "
        "--export --model --with-data --lang --overwrite"
    ),
    "watch": "folder --every --once --inputs --out --webhook --json",
    "sweep": (
        "model --do --baseline --activations --directions --top --layer-steps --samples "
        "--null-samples --threshold --seed --threads --out --engine --engine-option --workers "
        "--plan --html --lang --table --fail-on --json"
    ),
    "reproduce": (
        "studies --corpus --model --data-dir --seeds --steps --tokens --full --quick --out --json"
    ),
    "explain": (
        "model --classes --index --html --table --dataset --data-dir --baseline --plate --lang "
        "--allow-pickle --trust-pickle --residual --no-residual --overwrite --json --data --labels "
        "--encoding"
    ),
}
RUNNABLE = [name for name in FROZEN if name not in ("", "train")]
for name in RUNNABLE:
    FROZEN[name] += " --quiet -q --verbose -v"


def spellings(command: Any) -> list[str]:
    return [
        text
        for parameter in command.params
        for text in (*parameter.opts, *parameter.secondary_opts)
    ]


def test_no_command_is_missing_from_the_frozen_list() -> None:
    assert list(commands()) == sorted(FROZEN, key=list(commands()).index)


@pytest.mark.parametrize("name", FROZEN)
def test_the_options_of_a_command_are_a_promise(name: str) -> None:
    found = spellings(commands()[name])
    assert sorted(found) == sorted(FROZEN[name].split())


@pytest.mark.parametrize("name", FROZEN)
def test_help_says_what_it_does_and_goes_to_stdout(name: str, bilens: Shell) -> None:
    result = bilens(*name.split(), "--help")
    assert (result.code, result.err) == (0, "")
    assert "Usage: " in result.out
    assert f"{name} [OPTIONS]" in result.out  # the program's own name is pytest's in here
    for option in FROZEN[name].split():
        assert option in result.out


def test_what_few_need_stands_in_panels_behind_the_common_options(bilens: Shell) -> None:
    text = bilens("audit", "--help").out
    panels = [text.index(f"─ {name} ─") for name in ("Options", "How the file is read", "Method")]
    assert panels == sorted(panels)
    assert panels[0] < text.rindex("--html") < panels[1] < text.rindex("--map") < panels[2]
    assert text.rindex("--threshold") > panels[2]


@pytest.mark.parametrize("name", RUNNABLE)
def test_help_shows_an_example_that_parses(name: str, bilens: Shell) -> None:
    text = " ".join(bilens(*name.split(), "--help").out.split())
    example = text.split("Example: bilens ")[1].split(" ╭")[0].split()
    assert example[: len(name.split())] == name.split()
    for word in example:
        if word.startswith("--"):
            assert word in FROZEN[name].split()


@pytest.mark.parametrize("arguments", [(), ("train",)])
def test_without_a_command_the_help_is_shown(arguments: tuple[str, ...], bilens: Shell) -> None:
    result = bilens(*arguments)
    assert result.code == 2  # nothing was done
    assert "Usage: " in result.out + result.err


def test_the_version_is_one_line(bilens: Shell) -> None:
    result = bilens("--version")
    assert (result.code, result.out, result.err) == (0, f"bilens {VERSION}\n", "")


def test_the_help_lists_the_exit_codes(bilens: Shell) -> None:
    text = " ".join(bilens("--help").out.split())
    assert "Read what an MLP computes straight from its weights." in text
    codes = (
        "0 ok, 1 an audit condition failed, 2 usage, 3 bad or unsafe file, 4 numerical failure, "
    )
    assert f"{codes}5 resource limit, 70 a fault of bilens, 130 interrupted." in text


def test_the_defaults_of_train_are_those_of_the_recipe() -> None:
    """One source of defaults: the paper's recipe."""
    fields = {
        parameter.name: parameter.default
        for parameter in commands()["train image"].params
        if parameter.name in ImageRecipe.__dataclass_fields__
    }
    expected = {**ImageRecipe().to_dict(), "gate": "none", "augmentations": None}
    assert fields == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], "No such command"),
        (["audit"], "model"),
        (["audit", "x", "--speed", "9"], "--speed"),
        (["train", "image"], "--out"),
        (["train", "image", "--out", "x", "--epochs", "0"], "--epochs"),
        (["train", "image", "--out", "x", "--gate", "tanh"], "--gate"),
        (["demo", "--seed", "-1"], "--seed"),
        (["explain", "x", "--index"], "--index"),
        (["decompose", "x", "--contrast", "4"], "--contrast"),
        (["audit", "x", "--lang", "fr"], "--lang"),
    ],
)
def test_a_line_that_does_not_parse_is_a_usage_error(
    arguments: list[str], words: str, bilens: Shell
) -> None:
    result = bilens(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert words in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("name", RUNNABLE)
def test_on_forty_columns_nothing_is_cut(
    name: str, bilens: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = bilens(*name.split(), "--help").out
    for parameter in commands()[name].params:
        for part in (*parameter.opts, parameter.help or ""):
            assert "".join(part.split()) in "".join(text.split())


def test_quiet_and_verbose_may_stand_on_either_side(bilens: Shell) -> None:
    loud = bilens("audit", "missing", "-v")
    assert "Traceback" in loud.err
    assert loud.err.splitlines()[-1].startswith("error: ")
    assert bilens("-v", "audit", "missing").err.count("Traceback") == 1
    assert bilens("audit", "missing", "-q").code == bilens("-q", "audit", "missing").code == 3


def test_a_shell_can_complete(bilens: Shell) -> None:
    assert "--install-completion" in bilens("--help").out
