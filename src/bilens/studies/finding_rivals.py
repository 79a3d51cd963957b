"""What others read of the same models: WeightWatcher, and Neural Cleanse on test images."""

import contextlib
import io
import logging
import math
import warnings

import torch

from bilens.base.errors import MissingExtraError
from bilens.data.images import ImageDataset
from bilens.studies.finding_models import Model
from bilens.studies.study import Record

IMAGES, STEPS, RATE = 100, 200, 0.1
COST, GROWTH, GOAL = 0.01, 1.2, 0.99  # of the mask at first; its factor; success at which it grows
CONSISTENT = 1.4826  # of the median deviation with a normal deviation


def weightwatcher(model: Model) -> Record:
    """Return WeightWatcher's metrics, means over the matrices of a model."""
    try:
        import weightwatcher as watcher
    except ImportError:
        raise MissingExtraError("weightwatcher", "study", "Comparing with WeightWatcher") from None
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        watched = watcher.WeightWatcher(model=model)
        summary = watched.get_summary(watched.analyze(mp_fit=True, min_evals=1))
    logging.disable(logging.NOTSET)
    return {name: float(value) for name, value in summary.items() if math.isfinite(value)}


def neural_cleanse(model: Model, data: ImageDataset) -> Record:
    """Return the anomaly index of the smallest mask that turns test images to one class.

    For each class: argmin over mask m and pattern p of CE(f((1 − m)x + mp), t) + cost · ‖m‖₁, the
    cost raised while the attack works and lowered while it does not. Index: (median − ‖m_t‖₁) over
    1.4826 times the median deviation, of the smallest mask.
    Source: B. Wang et al., Neural Cleanse, IEEE S&P 2019.
    """
    classes = len(data.class_names)
    images, goals = data.test_images[:IMAGES], torch.arange(classes).repeat_interleave(IMAGES)
    generator = torch.Generator().manual_seed(0)
    free = torch.rand(2, classes, 1, images.shape[1], generator=generator).logit()
    free[0] -= 2  # small masks at first
    free.requires_grad_()
    optimizer = torch.optim.Adam([free], lr=RATE)
    cost, sizes = torch.full((classes,), COST), torch.full((classes,), torch.inf)
    for _ in range(STEPS):
        mask, paint = free.sigmoid()
        logits = model(((1 - mask) * images + mask * paint).flatten(0, 1))
        loss = torch.nn.functional.cross_entropy(logits, goals, reduction="none")
        size = mask.sum(dim=(1, 2))
        optimizer.zero_grad()
        (loss.reshape(classes, -1).mean(dim=1) + cost * size).sum().backward()
        optimizer.step()
        with torch.no_grad():
            right = (logits.argmax(dim=1) == goals).float().reshape(classes, -1).mean(dim=1)
            works = right >= GOAL
            sizes = torch.where(works, torch.minimum(sizes, size), sizes)
            cost = torch.where(works, cost * GROWTH, cost / GROWTH)
    found = torch.where(sizes.isfinite(), sizes, size.detach())
    middle = found.median()
    spread = CONSISTENT * (found - middle).abs().median()
    index = (middle - found.min()) / spread if spread > 0 else torch.zeros(())
    return {"index": float(index), "target": int(found.argmin()), "sizes": found.tolist()}
