"""The command lines that are recorded: what is trained, what is read, what is refused.

`OUT` stands for a folder of the case itself; what is written there is recorded. Stages run one
after the other: a later one reads what an earlier one wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Case:
    """One command line."""

    name: str
    line: tuple[str, ...]
    stage: int = 2
    environment: dict[str, str] = field(default_factory=dict)
    only: str = "**/*"  # which of the files that it writes are compared
    written: str = "OUT"  # the folder that they are in
    measures_time: bool = False  # what it prints is another text each time


def case(name: str, line: str, stage: int = 2, **environment: str) -> Case:
    """A case from the words of a line; `~` inside a word stands for a space."""
    words = tuple(word.replace("~", " ") for word in line.split())
    return Case(name, words, stage, environment)


IMAGE = "--dataset mnist --data-dir idx"
TRAIN_IMAGE = (
    "train image --data-dir idx --no-download --hidden 8 --epochs 3 --batch-size 32 "
    "--learning-rate 0.02 --weight-decay 0.1 --noise 0.1 --precision float32"
)
TRAIN_LANGUAGE = (
    "train language --model-width 8 --hidden 12 --layers 2 --heads 2 --context-length 15 "
    "--batch-size 16 --evaluations 3 --steps 24 --precision float32 --device cpu"
)
GRAMMAR = "--corpus grammar --limit 150 --held-out 0.2"
TRAIN_SAE = (
    "train sae out/train_language/run --num-latents 20 --k 3 --tokens 2000 --batch-size 64 "
    "--buffer-size 700 --device cpu"
)
SAES = (
    "--input-sae out/train_sae/run/blocks.0.mlp_in --output-sae out/train_sae/run/blocks.0.mlp_out"
)
TRACE = "trace out/train_language/run --layer 0"
QUICK = "--outputs 2 --pairs 4 --features 3 --top 4 --tokens 400"
RUN = "out/train_image/run"
TABLE = "out/train_table/run"

TRAINING = [
    case("train_image", f"{TRAIN_IMAGE} --out OUT/run --json", 0),
    case(
        "train_image_deep",
        f"{TRAIN_IMAGE} --out OUT/run --layers 2 --bias --residual --gate silu --dropout 0.1 "
        "--model-noise 0.05 --augment translation:0.1 --augment salt-and-pepper:0.02 --seed 3",
        0,
    ),
    case("train_language", f"{TRAIN_LANGUAGE} {GRAMMAR} --out OUT/run --json", 0),
    case(
        "train_language_text",
        f"{TRAIN_LANGUAGE} --corpus stories.txt --vocabulary 300 --tied --gate gelu "
        "--schedule cosine --clip 1 --seed 2 --out OUT/run",
        0,
    ),
    case(
        "train_language_ordinary",
        f"{TRAIN_LANGUAGE} {GRAMMAR} --mlp ordinary --out OUT/run",
        0,
    ),
    case("train_table", "train table tables/classes.csv --target y --out OUT/run --json", 0),
    case(
        "train_table_numbers",
        "train table tables/numbers.csv --target y --test 0.25 --drop depth --out OUT/run",
        0,
    ),
    case(
        "train_table_holes",
        "train table tables/hole.csv --target y --missing mean --components 2 --seed 4 "
        "--out OUT/run --json",
        0,
    ),
    case(
        "train_sae",
        f"{TRAIN_SAE} --hook blocks.0.mlp_in --hook blocks.0.mlp_out --out OUT/run --json",
        1,
    ),
    case(
        "train_sae_raw",
        f"{TRAIN_SAE} --hook blocks.1.resid_mid --sign raw --schedule cosine --corpus grammar "
        "--limit 80 --seed 5 --out OUT/run",
        1,
    ),
    case("train_image_again", f"{TRAIN_IMAGE} --out {RUN}", 2),
    case("demo", "demo --out OUT/demo --lang ja --json", 2),
]

CLASSIFIERS = [
    case("decompose", f"decompose {RUN} --top 3 --out OUT/pairs --json"),
    case("decompose_table", "decompose models/one --null-samples 39 --seed 2"),
    case("decompose_deep", "decompose models/deep --null-samples 0 --spectrum whole --verify"),
    case("decompose_contrast", "decompose models/one --contrast slanting level --json"),
    case(
        "decompose_raw", "decompose models/biased --reading raw --outputs 0,2 --which both --json"
    ),
    case("decompose_lanczos", "decompose models/wide --method lanczos --spectrum top --json"),
    case(
        "decompose_float32", "decompose models/plain --precision float32 --basis embedding --json"
    ),
    case("decompose_whitened", f"decompose {RUN} --basis whitened --data-dir idx --json"),
    case("decompose_plan", "decompose models/wide --plan --json"),
    case("decompose_plan_table", "decompose models/deep --plan", COLUMNS="80"),
    case("audit", f"audit {RUN} --data-dir idx --null-samples 39 --html OUT/page.html --json"),
    case(
        "audit_japanese",
        f"audit models/one {IMAGE} --null-samples 39 --html OUT/page.html --markdown OUT/page.md "
        "--lang ja",
    ),
    case("audit_markdown", "--quiet audit models/plain --null-samples 39 --markdown -"),
    case(
        "audit_deep",
        f"audit models/deep_gated {IMAGE} --null-samples 3 --html OUT/page.html "
        "--markdown OUT/page.md --fail-on r2<0.9999 --fail-on non_finite --json",
    ),
    case("audit_deep_japanese", "audit models/deep --null-samples 3 --html OUT/p.html --lang ja"),
    case("audit_gated", "audit models/gated --null-samples 3 --fail-on trigger --threshold 0.2"),
    case(
        "audit_baseline",
        "audit models/changed --baseline models/one --null-samples 39 --fail-on similarity<0.5 "
        "--html OUT/page.html --json",
    ),
    case(
        "audit_layers_baseline", "audit models/tuned --baseline models/transformer --null-samples 3"
    ),
    case(
        "audit_language",
        "audit out/train_language/run --null-samples 3 --html OUT/page.html --json "
        "--fail-on non_finite",
    ),
    case("certify", f"certify {RUN} --data-dir idx --samples 20 --html OUT/page.html --json"),
    case(
        "certify_japanese", f"certify models/biased {IMAGE} --samples 5 --html OUT/p.html --lang ja"
    ),
    case("certify_weights", "certify models/plain --truncate 4 --radius 2 --json"),
    case("attack", f"attack {RUN} --data-dir idx --target 1 --html OUT/page.html --json"),
    case(
        "attack_pairs",
        f"attack models/one {IMAGE} --target upright --pairs --epsilon 0.5 --epsilon 2 "
        "--html OUT/page.html --lang ja",
    ),
    case("attack_all", f"attack models/plain {IMAGE} --epsilon 1 --json --seed 3"),
    case("explain", f"explain {RUN} --data-dir idx --index 3 --index 4"),
    case(
        "explain_drawn",
        f"explain {RUN} --data-dir idx --index 3 --plate OUT/p.svg --lang ja --json",
    ),
    case("explain_mean", f"explain models/biased {IMAGE} --index 7 --baseline mean --json"),
    case("fit", "fit models/deep_gated --samples 2000 --json"),
    case("fit_exact", "fit models/one --threshold 0.9999"),
    case("fit_images", f"fit models/gated {IMAGE} --samples 500"),
]
FILES = [
    case("fit_file", "fit files/pair.safetensors --activation gelu --samples 2000 --json"),
    case(
        "fit_roles",
        "fit files/pair.safetensors --map up=fc1.weight --map down=fc2.weight "
        "--map up_bias=fc1.bias --map down_bias=fc2.bias --activation leaky_relu:0.2 --seed 1",
    ),
    case(
        "fit_chain",
        "fit files/chain.safetensors --activation tanh,relu --data files/rows.csv --json",
    ),
    case(
        "fit_npy",
        "fit files/chain.safetensors --activation silu --data files/rows.npy --layer layers.1",
    ),
    case("audit_file", "audit files/pair.safetensors --activation relu --null-samples 3 --json"),
    case(
        "decompose_glu",
        "decompose files/glu.safetensors --activation identity --no-transposed --json",
    ),
    case("decompose_official", "decompose official/image.safetensors --residual --json"),
    case(
        "audit_official_pickle",
        "audit official/image.pt --no-residual --allow-pickle --null-samples 3",
    ),
    case("decompose_surrogate", "decompose official/surrogate.safetensors --json"),
    case("decompose_llama", "decompose hf/llama --layer blocks.1.mlp --null-samples 0 --top 2"),
    case("audit_qwen", "audit hf/qwen2 --null-samples 3 --html OUT/page.html --json"),
    case("audit_gguf", "audit gguf/Q8_0.gguf --null-samples 3 --json"),
    case("convert_llama", "convert hf/llama --to bilens --out OUT/model --json"),
    case(
        "convert_official",
        "convert official/one.safetensors --residual --to bilens --out OUT/model",
    ),
    case("convert_language", "convert out/train_language/run --to huggingface --out OUT/model"),
    case(
        "convert_saelens",
        "convert out/train_sae/run/blocks.0.mlp_in --to saelens --out OUT/sae --json",
    ),
    case("convert_sparsify", "convert models/sae --to sparsify --out OUT/sae"),
    case("convert_official_sae", "convert models/sae_raw --to official --out OUT/sae"),
    case("convert_back", "convert saes/saelens --to bilens --out OUT/sae --json"),
]
LANGUAGE = [
    case("trace", f"{TRACE} {SAES} {QUICK} --html OUT/page.html --graph OUT/graphs --json"),
    case("trace_japanese", f"{TRACE} {SAES} {QUICK} --latent 3 --html OUT/page.html --lang ja"),
    case("trace_tokens", f"{TRACE} --outputs 2 --tokens 400 --html OUT/page.html"),
    case("trace_toward", f"{TRACE} --toward sad --tokens 400 --json"),
    replace(
        case("reproduce", "reproduce language/gates --corpus grammar --steps 1 --out OUT/study"),
        only="**/cells/equal-steps*.json",
        measures_time=True,
    ),
]
TABLES = [
    case("explain_table", f"explain {TABLE} --table tables/classes.csv --index 3"),
    case(
        "explain_number",
        "explain out/train_table_numbers/run --table tables/numbers.csv --index 0 --json",
    ),
    case("audit_table", f"audit {TABLE} --table {TABLE}/test.csv --html OUT/page.html --json"),
    case(
        "audit_table_japanese",
        f"audit {TABLE} --table tables/classes.csv --html OUT/p.html --lang ja",
    ),
    case(
        "audit_numbers",
        "audit out/train_table_numbers/run --table tables/numbers.csv "
        "--markdown OUT/p.md --html OUT/page.html",
    ),
    case("certify_table", f"certify {TABLE} --json"),
    case("decompose_columns", f"decompose {TABLE}"),
]
BAD: dict[str, str] = {
    **{
        f"model_{name}": f"audit bad/{name}"
        for name in (
            *("nowhere", "nan", "infinite", "missing", "unexpected", "misshaped", "unfinished"),
            *("unknown_field", "future", "other_format", "other_names", "pointer.safetensors"),
            *("empty.safetensors", "pickle.pt", "cat.png"),
        )
    },
    "model_damaged.pt": "audit bad/damaged.pt --allow-pickle",
    "overflow": "audit models/enlarged",
    "overflow_decompose": "decompose models/enlarged",
    "certify_gated": "certify models/gated",
    "certify_deep": "certify models/deep",
    "data_nowhere": f"{TRAIN_IMAGE} --data-dir nowhere --out OUT/run",
    "data_truncated": f"{TRAIN_IMAGE} --data-dir bad_idx/truncated --out OUT/run",
    "data_swapped": f"{TRAIN_IMAGE} --data-dir bad_idx/swapped --out OUT/run",
    "data_lacking": f"{TRAIN_IMAGE} --data-dir bad_idx/lacking --out OUT/run",
    "data_of_another": f"audit models/narrow {IMAGE}",
    "data_unnamed": "audit models/one --data-dir idx",
    "no_such_image": f"explain models/one {IMAGE} --index 60",
    "diverges": f"{TRAIN_IMAGE} --learning-rate 1e30 --out OUT/run",
    "no_resume": f"{TRAIN_IMAGE} --resume --out OUT/run",
    "both_flags": f"{TRAIN_IMAGE} --resume --overwrite --out OUT/run",
    "no_augmentation": f"{TRAIN_IMAGE} --augment spin:3 --out OUT/run",
    "too_large": f"{TRAIN_IMAGE} --hidden 1000000000 --out OUT/run",
    "no_layer": "decompose models/one --layer x",
    "no_output": "decompose models/one --outputs 0,7",
    "contrast": "decompose models/one --contrast 0 7",
    "memory": "decompose models/one --memory-limit 1k",
    "memory_text": "decompose models/one --memory-limit much",
    "residual_known": "decompose models/one --residual",
    "whitened": "decompose models/one --basis whitened",
    "rotations": "audit models/one --null-samples 5",
    "seed": "audit models/one --seed 1000000000000000000000000000000",
    "rule": "audit models/one --fail-on speed",
    "condition": "audit models/one --fail-on r2<",
    "rule_needs_data": "audit models/one --fail-on accuracy<0.9",
    "baseline": "audit models/deep --baseline models/transformer --null-samples 3",
    "stdout_twice": "audit models/one --markdown - --json",
    "html_folder": "audit models/one --html models --overwrite",
    "activation": "fit files/pair.safetensors",
    "activation_name": "fit files/pair.safetensors --activation mish",
    "role": "fit files/pair.safetensors --map in=fc1.weight",
    "pickled_mlp": "fit files/pair.pt --activation relu",
    "poisoned": "fit files/poisoned.safetensors --activation relu",
    "columns": "fit files/pair.safetensors --activation relu --data files/short.csv",
    "gpt2": "audit hf/gpt2",
    "quantised": "audit hf/quantised",
    "gguf_cut": "audit gguf/cut.gguf",
    "sae_as_model": "decompose models/sae",
    "jumprelu": "convert saes/jumprelu --to bilens --out OUT/sae",
    "convert_same": "convert models/one --to huggingface --out OUT/model",
    "trace_layer": f"trace models/transformer --layer 9 {SAES}",
    "trace_gated": "trace models/transformer_gated --layer 0",
    "trace_sae": f"{TRACE} --input-sae nowhere --output-sae nowhere",
    "trace_corpus": f"{TRACE} --toward sad --corpus nowhere.txt",
    "language_corpus": f"{TRAIN_LANGUAGE} --corpus nowhere.txt --out OUT/run",
    "language_heads": f"{TRAIN_LANGUAGE} {GRAMMAR} --heads 3 --out OUT/run",
    "sae_hook": f"{TRAIN_SAE} --hook blocks.0.nowhere --out OUT/run",
    "sae_k": f"{TRAIN_SAE} --hook blocks.0.mlp_in --k 20 --out OUT/run",
    **{
        f"table_{name}": f"train table tables/{name}.csv --target y --out OUT/run"
        for name in ("one_row", "ragged", "hole", "twice", "one_number", "empty", "nowhere")
    },
    "table_target": "train table tables/numbers.csv --target z --out OUT/run",
    "table_alpha": "train table tables/numbers.csv --target y --alpha 0 --out OUT/run",
    "study": "reproduce language/nothing --out OUT/study",
    "no_command": "conjure",
    "no_option": "audit models/one --speed 3",
    "no_language": "audit models/one --html OUT/p.html --lang fr",
}
HELP = ("", "decompose", "audit", "train", "train~language")


def cases() -> Iterator[Case]:
    """All of them, the slow ones first."""
    yield from sorted(TRAINING, key=lambda one: one.name != "demo")
    for group in (LANGUAGE, FILES, CLASSIFIERS, TABLES):
        yield from group
    yield case("memory_variable", "audit models/wide --null-samples 39", BILENS_MEMORY_LIMIT="1M")
    for name, line in BAD.items():
        yield case(f"bad_{name}", f"--quiet {line}")
    for name in HELP:
        words = name.split("~")
        yield case(f"help_{'_'.join(words)}", f"{' '.join(words)} --help", COLUMNS="100")
