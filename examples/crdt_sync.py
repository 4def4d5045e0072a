"""Documents that several people edit at once (Yjs), with the package `pycrdt-websocket`, in rooms by path.

    wsbridge serve crdt_sync:app --app-dir examples --connector aiohttp

Clients of Yjs (y-websocket, pycrdt's Provider) connect to ``/documents/{name}``. It needs the package installed.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from pycrdt import Channel
from pycrdt.websocket import WebsocketServer, YRoom

from wsbridge import Application, ChannelClosedError, MessageStream, Request, stream_handler


class Documents(WebsocketServer):
    """Starts the room of a document once, however many open it at the same time.

    pycrdt-websocket 0.16 starts it for each of them, and all but the first wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starting = asyncio.Lock()

    async def start_room(self, room: YRoom) -> None:
        if not room.started.is_set():
            async with self._starting:
                await super().start_room(room)


documents = Documents()


class DocumentChannel(Channel):
    """What pycrdt wants of a connection: a path, binary messages, and no error when the peer leaves."""

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream

    @property
    def path(self) -> str:
        return self._stream.request.path

    async def send(self, message: bytes) -> None:
        with contextlib.suppress(ChannelClosedError):  # it is told by the end of the messages
            await self._stream.send(message)

    async def recv(self) -> bytes:
        return await self._stream.recv_binary()

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except ChannelClosedError:
            raise StopAsyncIteration from None


async def serve(stream: MessageStream, request: Request) -> None:
    await documents.serve(DocumentChannel(stream))


@contextlib.asynccontextmanager
async def lifespan(app: Application) -> AsyncGenerator[None]:
    async with documents:
        yield


app = Application([("/documents/{name}", stream_handler(serve))], lifespan=lifespan)
