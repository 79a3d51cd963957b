"""Which commands can work on a model: each is offered, and taken, for no other."""

from pathlib import Path
from typing import Literal

from bilens.data.tokenizer import FILE_NAME as TOKENIZER
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier, BilinearTransformer, TopKSAE
from bilens.records.jobs import OPTIONS, Command, NotOffered


def suits(model: LoadedModel, command: Command) -> bool:
    """Return whether a command takes a model that has layers; what it may miss is data."""
    module, views = model.module, tuple(model.layers.values())
    if command == "trace":
        read = isinstance(module, BilinearTransformer) and any(view.exact for view in views)
        return read and (Path(model.source) / TOKENIZER).is_file()
    if command in ("certify", "explain"):
        exact = isinstance(module, BilinearClassifier) and [view.exact for view in views] == [True]
        return exact and (command == "explain" or views[0].sizes.d_out > 1)
    return True


def not_offered(model: LoadedModel) -> tuple[NotOffered, ...]:
    """Return the commands that cannot work on a model, each with why."""
    if isinstance(model.module, TopKSAE):
        return tuple(NotOffered(command, "coder") for command in OPTIONS)
    offers: tuple[Literal["certify", "trace", "explain"], ...] = ("certify", "trace", "explain")
    return tuple(NotOffered(one, one) for one in offers if not suits(model, one))
