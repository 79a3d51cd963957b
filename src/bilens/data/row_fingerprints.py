"""Fingerprints of the rows of a training, by which the same rows are known again."""

import hashlib
from base64 import b64decode, b64encode

import numpy as np
import torch
from torch import Tensor

ROWS_KEY = "training_rows"  # in the provenance of a model: the fingerprints of its training rows


def row_fingerprints(inputs: Tensor, targets: Tensor) -> str:
    """Return 32 bits of each row with its right answer, so that the same rows are known again."""
    rows = torch.cat([inputs.double(), targets[:, None].double()], dim=1).float().cpu().numpy()
    hashes = (hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in rows + 0.0)
    return b64encode(b"".join(hashes)).decode()


def known_rows(text: str, inputs: Tensor, targets: Tensor) -> tuple[int, float]:
    """Return how many rows are among those of fingerprints, and the share of twins among these."""
    texts = (text, row_fingerprints(inputs, targets))
    known, rows = (np.frombuffer(b64decode(found), "<u4") for found in texts)
    counts = np.unique(known, return_counts=True)[1]
    return int(np.isin(rows, known).sum()), float(counts[counts > 1].sum() / max(len(known), 1))
