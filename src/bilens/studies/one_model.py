"""Studies of the layers of one language model that was trained before."""

from __future__ import annotations

from pathlib import Path

from bilens.base.errors import UsageError
from bilens.studies.study import Study, StudyOptions


class OneModelStudy(Study):
    """A study that trains autoencoders, for --steps updates, on the model of --model."""

    uses = frozenset({"models", "steps"})
    needs = frozenset({"models"})

    def check(self, options: StudyOptions) -> None:
        """Refuse several models.

        Raises:
            UsageError: If there is not one model, or an option that the study does not read.
        """
        super().check(options)
        model_of(options)


def model_of(options: StudyOptions) -> Path:
    """Return the run folder of the model.

    Raises:
        UsageError: If there is not one.
    """
    models = options.models or ()
    if len(models) != 1:
        raise UsageError(
            f"--model was given {len(models)} times; expected one language model: run the study "
            "once for each, with another --out."
        )
    return Path(models[0])
