"""Time and memory of each task of a sweep on layers of real size, with random weights.

An expert of DeepSeek-V3 (7168, 2048) in FP8, and an MLP of a 70B Llama (8192, 28672) in bfloat16;
`python -m bench.sweep.scaling sizes` runs each task in a process of its own.
"""

import argparse
import json
import resource
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bench.sweep.deepseek import BLOCK

SIZES = {"expert": (7168, 2048), "layer": (8192, 28672)}
TASKS = ("audit", "fit", "decompose")
DIRECTIONS, TOP = 64, 5
NULL_SAMPLES = {"expert": 19, "layer": 3}  # 3 are the fewest that an audit takes


def write_layer(folder: Path, name: str) -> Path:
    """Write a model of one layer; both have the variance that makes ‖f(x)‖ about ‖x‖."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    width, hidden = SIZES[name]
    draw = torch.Generator().manual_seed(0)
    shapes = {"gate": (hidden, width), "up": (hidden, width), "down": (width, hidden)}
    about: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": 1,
    }
    parts = {}
    for part, shape in shapes.items():
        weight = torch.randn(shape, generator=draw) / shape[1] ** 0.5
        if name == "layer":
            parts[f"model.layers.0.mlp.{part}_proj.weight"] = weight.bfloat16()
            continue
        full = f"model.layers.0.mlp.experts.0.{part}_proj.weight"
        tiles = weight.view(shape[0] // BLOCK, BLOCK, shape[1] // BLOCK, BLOCK)
        scales = tiles.abs().amax(dim=(1, 3)) / 448
        parts[full] = (tiles / scales[:, None, :, None]).view(shape).to(torch.float8_e4m3fn)
        parts[f"{full}_scale_inv"] = scales
    if name == "expert":
        home = "model.layers.0.mlp"
        for part in ("gate", "up", "down"):
            for ending in ("weight", "weight_scale_inv"):
                one = parts[f"{home}.experts.0.{part}_proj.{ending}"].clone()
                parts[f"{home}.shared_experts.{part}_proj.{ending}"] = one
        parts[f"{home}.gate.weight"] = torch.zeros(1, width)
        parts[f"{home}.gate.e_score_correction_bias"] = torch.zeros(1)
        about |= {
            "model_type": "deepseek_v3",
            "n_routed_experts": 1,
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]},
        }
    else:
        about |= {"model_type": "qwen2"}
    save_file(parts, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**about, "hidden_act": "silu"}))
    return folder


def measured(out: Path, size: str, task: str) -> dict[str, Any]:
    """Return seconds and peak memory of a task of a layer, in this process.

    `draws_cpu_seconds` are the draws of the null but the first, whose beginning is not seen.
    """
    from bilens.algebra import random_rotations
    from bilens.io.load import load
    from bilens.records.base import to_json
    from bilens.records.sweep import SweepOptions
    from bilens.sweep.tasks import TASKS as KNOWN, Subject

    options = SweepOptions(
        tasks=(task,),
        directions=DIRECTIONS,
        top=TOP,
        null_samples=NULL_SAMPLES[size],
        threshold=0.5,
        threads=torch.get_num_threads(),
    )
    model = load(out / size)
    name = next(iter(model.layers))
    drawn: list[float] = []  # core seconds when a draw of the null ends
    read = random_rotations.read_sample

    def noted(*given: Any) -> torch.Tensor:
        found = read(*given)
        drawn.append(time.process_time())
        return found

    random_rotations.read_sample = noted  # type: ignore[assignment]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    found = KNOWN[task].run(Subject(model, None, 0, name, options))
    draws = [end - begin for begin, end in pairwise(drawn)]
    record: Any = found.record
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "before_bytes": before * 1024,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "estimated_seconds": KNOWN[task].seconds(model.layers[name].sizes, options),
        "draws_cpu_seconds": draws,
        "found_stability": to_json(record.stability) if task == "audit" else None,
        **{f"found_{key}": value or 0.0 for key, value in found.numbers.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", nargs=2, required=True)
    given = parser.parse_args()
    print(json.dumps(measured(given.out, *given.one)))
