"""What is told of real model files: every number is the one that the library of the format counts.

Tests are offline: the files lie in the folder BILENS_TEST_CORPUS, which `make bench-real` fills.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

import bilens as bl
from corpus_real import COUNTED, RealFile, count_tensors, listed_files

FOLDER = os.environ.get("BILENS_TEST_CORPUS", "")
ROWS = listed_files()
COUNTABLE = [row for row in ROWS if row.counts is not None and row.format in COUNTED]
AUDITED = (
    "rapidocr-onnxruntime/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "silero-vad/silero_vad_16k_op15.onnx",
    "speechmos/model_v8.onnx",
)


def file_of(row: RealFile) -> Path:
    if not FOLDER:
        pytest.skip("BILENS_TEST_CORPUS is not set to a folder that `make bench-real` filled")
    path = Path(FOLDER, row.place)
    if not path.exists():
        pytest.skip(f"{row.package}=={row.version} was not fetched")
    return path


def test_no_row_stands_for_two_files():
    assert max(Counter(row.place for row in ROWS).values()) == 1
    versions = {(row.package, row.version) for row in ROWS}
    assert len(versions) == len({row.package for row in ROWS})
    assert len(ROWS) >= 36
    assert len({row.format for row in ROWS}) >= 12


@pytest.mark.parametrize("row", COUNTABLE, ids=lambda row: row.place)
def test_numbers_are_those_of_the_library_of_the_format(row: RealFile):
    path = file_of(row)
    module = {"ONNX": "onnx", "GGUF": "gguf", "Keras HDF5": "h5py"}.get(row.format)
    if module:
        pytest.importorskip(module)
    counted, told = count_tensors(row, path), row.counts
    if row.format == "PyTorch pickled module":  # storages, which tensors share
        assert counted[1:] == told[1:]
    else:
        assert counted == told


@pytest.mark.slow
@pytest.mark.parametrize("row", [r for r in ROWS if r.place in AUDITED], ids=lambda row: row.place)
def test_an_audit_tells_the_parameters_that_were_counted(row: RealFile):
    """Tensors of one number, as writers make of an epsilon, may be left out."""
    pytest.importorskip("onnx")
    document = bl.audit(bl.load(file_of(row)), null_samples=3).document
    told, counts = document["coverage"]["parameters"], row.counts
    assert counts.parameters - counts.single <= told <= counts.parameters
