"""What everybody who watches is told: the queue as it is now.

Each event holds the whole queue and no difference, so one who was away, or asleep, misses nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bilens.base.errors import BilensError
from bilens.records.base import displayable, json_text
from bilens.serve.folder import ServedFolder

PAUSE = 0.5  # seconds between two looks
HEARTBEAT = 15.0  # seconds after which a connection that says nothing would be given up
LISTED = 20  # jobs in an event


class Events:
    """Looks after the queue of a folder, and tells all streams of it at once."""

    def __init__(self, served: ServedFolder) -> None:
        self.served, self.state, self.closed = served, "", False
        self._next = asyncio.Event()  # of the next change

    @asynccontextmanager
    async def watched(self, _app: object) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        yield
        task.cancel()

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        self.closed = True
        self._tell(self.state)

    async def answer(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return StreamingResponse(self.stream(), media_type="text/event-stream")

    async def stream(self) -> AsyncIterator[str]:
        sent = ""
        yield "retry: 2000\n\n"
        while not self.closed:
            change = self._next
            if self.state != sent:
                sent = self.state
                yield f"event: jobs\ndata: {sent}\n\n"
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await change.wait()
            except TimeoutError:
                yield ": here\n\n"

    async def _watch(self) -> None:
        while True:
            with suppress(BilensError, OSError):  # a full disk, say: whoever asks is told
                state = await run_sync(self._look)
                if state != self.state:
                    self._tell(state)
            await asyncio.sleep(PAUSE)

    def _look(self) -> str:
        self.served.jobs.advance()
        return json_text(displayable(self.served.jobs.overview(LISTED)))

    def _tell(self, state: str) -> None:
        self.state, change, self._next = state, self._next, asyncio.Event()
        change.set()
