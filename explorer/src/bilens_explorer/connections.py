"""Connections of the server: one on which no whole request arrives in time is closed."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from bilens_explorer.guard import PATIENCE


class PromptConnection(H11Protocol):
    """Closes itself where the head of a request is not there `PATIENCE` after its first byte."""

    _timer: asyncio.TimerHandle | None = None

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(PATIENCE, self._close_late)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a request; the guard waits for its body."""
        if self._timer is None and not self._is_answering:
            self._timer = self.loop.call_later(PATIENCE, self._close_late)
        super().data_received(data)
        if self._is_answering and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_late(self) -> None:
        self._timer = None
        if not self._is_answering:
            self.transport.close()
