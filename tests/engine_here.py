"""An engine of a sweep that does each job where it is handed out."""

from collections.abc import Iterator

from bilens.sweep.engines.contract import SweepEngine
from bilens.sweep.jobs import Outcome, Spec, run_spec


class Here(SweepEngine):
    """Does each job where it is handed out."""

    def __init__(self) -> None:
        super().__init__(None, 1, {})
        self.ended: list[Outcome] = []

    capacity = 1

    def submit(self, spec: Spec, num_bytes: int) -> None:  # noqa: ARG002
        self.ended.append(run_spec(spec))

    def as_completed(self) -> Iterator[Outcome]:
        found, self.ended = self.ended, []
        return iter(found)

    def cancel(self) -> None: ...
