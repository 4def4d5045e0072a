"""STOP-1, STOP-3, STOP-7 to STOP-9, HS-10, HS-13, CTX-6: who connects, when, and who does no more than that."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

from wsbridge.application import Application
from wsbridge.conformance.checks.hs import ask, handshake
from wsbridge.conformance.checks.starting import free_port, occupied
from wsbridge.conformance.client import Close, Closed
from wsbridge.conformance.contract import CheckFailed, check, equal, fail, true
from wsbridge.conformance.hand_clock import now
from wsbridge.conformance.harness.bench import Bench, Served, open_descriptors, open_what_stays
from wsbridge.conformance.harness.certificates import Certificates
from wsbridge.http import Response
from wsbridge.interceptor import Context, Interceptor
from wsbridge.protocols import Connector, WebSocketChannel

_HOST = "127.0.0.1"
_TIMEOUT = 0.5  # seconds: the handshake_timeout of some checks
_SMALL = 4096  # bytes: what a peer takes that does not read


# ---- STOP-1: when it listens ----------------------------------------------------------------------------------------


def _with_lifespan(bench: Bench, entered: asyncio.Event, **options: Any) -> Connector:
    """Return a connector whose lifespan is entered when an event is set."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Application) -> AsyncGenerator[None]:
        bench.recorder.log("enter")
        await entered.wait()
        yield

    app = Application([("/", bench.options())], lifespan=lifespan)
    made: Connector = bench.connector(app, shutdown_timeout=2 * bench.scale, **options)
    return made


@check("STOP-1", wire=True)
async def listens_when_the_lifespan_is_entered(bench: Bench) -> None:
    """While the lifespan is entered nobody can connect, so that others who share the port get every connection."""
    port, entered = free_port(), asyncio.Event()
    connector = _with_lifespan(bench, entered, port=port)
    starting = asyncio.ensure_future(connector.start())
    try:
        await bench.recorder.wait("enter")
        with socket.socket() as sock:
            equal(sock.connect_ex((_HOST, port)), errno.ECONNREFUSED, "what a peer that connects then gets")
        entered.set()
        await bench.within(starting, "start()")
        async with bench.served(connector).peer() as peer:
            await peer.send_text("there")
            await bench.recorder.wait("text")
    finally:
        entered.set()
        await asyncio.wait((starting,))
        await bench.within(connector.stop(), "stop()")


@check("STOP-1", wire=True)
async def a_port_in_use_is_told_at_once(bench: Bench) -> None:
    """A port in use raises OSError before the lifespan is entered."""
    with occupied(_HOST) as port:
        connector = _with_lifespan(bench, asyncio.Event(), port=port)
        try:
            await bench.within(connector.start(), "start()")
        except OSError as exc:
            equal(exc.errno, errno.EADDRINUSE, "the error")
        else:
            fail("start() raised nothing")
        equal(bench.recorder.kinds(), [], "what was entered")


@check("STOP-1", wire=True, fixed=["address", "served"])
async def many_who_connect_at_once(bench: Bench) -> None:
    """While the event loop is busy 200 peers can connect, and each of them is served then."""
    count = 200
    async with bench.serve(bench.options()) as served:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.socket()) for _ in range(count)]
            began = now()
            for peer in peers:  # the loop does not run meanwhile
                peer.settimeout(bench.timeout)
                peer.connect(served.address)
                peer.sendall(handshake(served).encode())
            took = now() - began
            true(took < 0.9, f"{count} peers were connected after {took:.1f} s only: some had to try again")
            await bench.recorder.wait("open", count)


# ---- TLS that is not agreed on --------------------------------------------------------------------------------------


@check("HS-10", wire=True, tls=True)
async def tls_that_is_never_agreed_on(bench: Bench) -> None:
    """A peer that connects to a TLS port and says nothing, or not all, is cut off after handshake_timeout."""
    async with bench.serve(bench.options(), ssl=Certificates().server, handshake_timeout=_TIMEOUT) as served:
        await open_what_stays()
        descriptors = open_descriptors()
        for said in (b"", b"\x16\x03\x01\x02\x00\x01"):  # a record of TLS that is not whole
            began = now()
            async with served.raw() as peer:
                if said:
                    await peer.request(said)
                with contextlib.suppress(Closed):
                    await peer.wait_eof()
                took = now() - began
                true(took < _TIMEOUT + bench.scale, f"a peer that said {said!r} was cut off after {took:.2f} s only")
        await bench.settle(lambda: open_descriptors() <= descriptors, "the end of their sockets")


@check("STOP-3", wire=True, tls=True)
async def tls_that_is_not_agreed_on_yet(bench: Bench) -> None:
    """A peer that is connected and has not agreed on TLS yet does not outlive stop()."""
    async with bench.serve(bench.options(), ssl=Certificates().server, handshake_timeout=60) as served:
        assert served.connector is not None
        before = asyncio.all_tasks()
        async with served.raw() as peer:
            await asyncio.sleep(0.1)  # for the server to accept it; no event on this side tells when it has
            await bench.within(served.connector.stop(), "stop()")
            equal(list(asyncio.all_tasks() - before), [], "tasks left behind")
            with contextlib.suppress(Closed):
                await peer.wait_eof(0.5 * bench.scale)


@check("CLOSE-5", wire=True, tls=True)
async def over_tls_a_peer_that_has_left(bench: Bench) -> None:
    """Over TLS a channel that has ended in good order leaves nothing to fail or to be logged at close_timeout."""
    certificates = Certificates()
    close_timeout = 0.25
    over_tls: dict[str, Any] = {"ssl": certificates.client(), "server_hostname": "localhost"}
    async with bench.serve(bench.options(close_timeout=close_timeout), ssl=certificates.server) as served:
        for number in (1, 2):
            async with served.peer(**over_tls) as peer:
                await bench.recorder.wait("open", number)
                if number == 1:
                    bench.recorder.channels[0].close(4000)
                    equal(await peer.receive(), Close(4000), "what the peer gets")
                else:
                    await peer.send_close(4001)
                    equal((await peer.receive_close()).code, 4001, "what the peer gets")
            await bench.recorder.wait("close", number)
        await asyncio.sleep(close_timeout + 0.2)  # the time under test
    errors = [record.getMessage() for record in bench.logs if record.levelname == "ERROR"]
    equal(errors, [], "what was logged")


# ---- STOP-7: the file of a Unix socket ------------------------------------------------------------------------------


@contextlib.contextmanager
def _path() -> Generator[Path, None, None]:
    with tempfile.TemporaryDirectory(prefix="wsb") as directory:  # a path of a socket has to be short
        yield Path(directory, "s")


def _on(bench: Bench, path: Path, **options: Any) -> Connector:
    app = Application([("/", options.pop("handler", None) or bench.options())])
    made: Connector = bench.connector(app, unix_path=str(path), shutdown_timeout=2 * bench.scale, **options)
    return made


async def _serves(bench: Bench, connector: Connector) -> None:
    async with bench.served(connector).peer():
        pass


@check("STOP-7", needs=("unix-socket",))
async def the_mode_of_the_file(bench: Bench) -> None:
    """The file has the mode that is asked for, and without one that of the umask."""
    with _path() as path:
        for mode in (0o600, 0o660, 0o666):
            connector = _on(bench, path, unix_mode=mode)
            await bench.within(connector.start(), "start()")
            found = stat.S_IMODE(path.stat().st_mode)
            await _serves(bench, connector)
            await bench.within(connector.stop(), "stop()")
            equal(oct(found), oct(mode), "the mode")


@check("STOP-7", needs=("unix-socket",))
async def removed_while_channels_end(bench: Bench) -> None:
    """The file is removed when listening ends, so that a successor can start while channels end, and keeps its own."""
    released = asyncio.Event()

    async def on_close(channel: WebSocketChannel, process: Any, reason: Any) -> None:
        await released.wait()

    with _path() as path:
        old = _on(bench, path, handler=bench.options(on_close=on_close))
        await bench.within(old.start(), "start()")
        new = _on(bench, path)
        async with bench.served(old).peer() as peer:
            stopping = asyncio.ensure_future(old.stop())
            try:
                await peer.receive_close()
                await bench.settle(lambda: not path.exists(), "the end of the file")
                await bench.within(new.start(), "start() of the successor")
                released.set()
                await bench.within(stopping, "stop()")
                true(path.exists(), "the old one has removed the file of its successor")
                await _serves(bench, new)
            finally:
                released.set()
                await asyncio.wait((stopping,))
                await bench.within(new.stop(), "stop() of the successor")


@check("STOP-7", needs=("unix-socket",))
async def a_file_of_somebody_else(bench: Bench) -> None:
    """A file that another process has put in the place of the one that was bound stays."""
    with _path() as path:
        connector = _on(bench, path)
        await bench.within(connector.start(), "start()")
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            await bench.within(connector.stop(), "stop()")
            true(path.exists(), "the file was removed")


@check("STOP-7", needs=("unix-socket",))
async def two_that_start_at_once(bench: Bench) -> None:
    """Of two that start at once one serves, and the other raises OSError; a stale file is replaced."""
    with _path() as path:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        pair = [_on(bench, path) for _ in range(2)]
        results: list[Any] = await bench.within(
            asyncio.gather(*(one.start() for one in pair), return_exceptions=True), "two start() at once"
        )
        try:
            kinds = sorted("OSError" if isinstance(result, OSError) else repr(result) for result in results)
            equal(kinds, ["None", "OSError"], "the two results")
            await _serves(bench, pair[0 if results[0] is None else 1])
        finally:
            for one in pair:
                await bench.within(one.stop(), "stop()")


@check("STOP-7", needs=("unix-socket",))
async def somebody_who_is_behind_with_accepting(bench: Bench) -> None:
    """A path on which somebody listens and is behind with accepting raises OSError, and start() does not wait."""
    with _path() as path, contextlib.ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(3):  # until its queue is full
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(str(path))
        began = now()
        connector = _on(bench, path)
        try:
            await bench.within(connector.start(), "start()")
        except OSError as exc:
            equal(exc.errno, errno.EADDRINUSE, "the error")
        else:
            await connector.stop()
            fail("start() raised nothing")
        took = now() - began
        true(took < 1, f"start() took {took:.1f} s")
        true(path.exists(), "the file of somebody else was removed")


# ---- STOP-8: out of descriptors -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _no_descriptor() -> Generator[None, None, None]:
    """Leave this process no descriptor."""
    try:
        import resource
    except ImportError:
        raise CheckFailed("this system has no limit of descriptors, so that this cannot be checked") from None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    highest = max(map(int, os.listdir("/dev/fd"))) + 16
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@check("STOP-8", wire=True)
async def no_descriptor_left(bench: Bench) -> None:
    """Without descriptors open channels go on, with few log records and little CPU, and who waited is served later."""
    seconds = 1.0

    async def on_text(channel: WebSocketChannel, process: Any, text: str) -> None:
        await channel.send_text(text)

    async with bench.serve(bench.options(on_text=on_text)) as served, served.peer() as peer:
        await open_what_stays()
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.socket()) for _ in range(5)]
            with _no_descriptor(), _counted() as records:
                used = time.process_time()
                for sock in waiting:
                    sock.setblocking(False)
                    sock.connect_ex(served.address)
                await asyncio.sleep(seconds)
                used = time.process_time() - used
                await peer.send_text("still there?")
                equal(await peer.receive_text(), "still there?", "the echo")
                count = len(records)
            true(count <= 4, f"{count} log records in {seconds:g} s")
            true(used < seconds / 2, f"busy with nothing: {used:.2f} s of CPU in {seconds:g} s")
            for sock in waiting:
                sock.send(handshake(served).encode())
            await bench.recorder.wait("open", 6)


@check("STOP-8", wire=True)
async def a_stop_without_a_descriptor(bench: Bench) -> None:
    """A stop right after descriptors ran out leaves nothing that is logged later."""
    async with bench.serve(bench.options()) as served:
        assert served.connector is not None
        await open_what_stays()
        async with served.peer():
            pass  # a server may open what it needs in threads of its own (granian), and not be done when it listens
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.socket()) for _ in range(5)]
            with _no_descriptor(), _counted():
                for sock in waiting:
                    sock.setblocking(False)
                    sock.connect_ex(served.address)
                await asyncio.sleep(0.1)
            await bench.within(served.connector.stop(), "stop()")
            with _counted() as records:
                await asyncio.sleep(1.2)  # asyncio would try again after 1 s
            equal(len(records), 0, "records that were logged after the stop")


@contextlib.contextmanager
def _counted() -> Generator[list[Any], None, None]:
    """Count the warnings and errors that are logged, and hide them from what looks for errors: they are under test."""
    records: list[Any] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    counter = Collector(logging.WARNING)
    root, own = logging.getLogger(), logging.getLogger("wsbridge")
    others, root.handlers = root.handlers, list[logging.Handler]((counter,))
    own.addHandler(counter)
    try:
        yield records
    finally:
        root.handlers = others
        own.removeHandler(counter)


# ---- STOP-9: who waits at the stop ----------------------------------------------------------------------------------


async def _end_of(sock: socket.socket, timeout: float) -> str:
    """Return the status that a peer was answered with, or what it got instead, once its connection has ended."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    data = b""
    try:
        async with asyncio.timeout(timeout):
            while piece := await loop.sock_recv(sock, 65536):
                data += piece
    except TimeoutError:
        return f"no end ({data[:40]!r})"
    except OSError as exc:
        return f"{type(exc).__name__} ({data[:40]!r})"
    return data[9:12].decode("latin-1") or "an end without an answer"


@check("STOP-9", wire=True, stochastic=True)
async def who_waits_to_be_accepted(bench: Bench) -> None:
    """Peers that connected and asked while the event loop was busy, up to the stop, get 101 or 503, and no reset."""
    for turns in range(4):
        with contextlib.ExitStack() as stack:
            async with bench.serve(bench.options()) as served:
                assert served.connector is not None
                peers: list[socket.socket] = []
                for _ in range(10):  # the loop does not run meanwhile
                    peer = stack.enter_context(socket.socket())
                    peer.connect(served.address)
                    peer.sendall(handshake(served).encode())
                    peers.append(peer)
                for _ in range(turns):
                    await asyncio.sleep(0)
                ends = asyncio.gather(*(_end_of(peer, bench.timeout) for peer in peers))
                await bench.within(served.connector.stop(), "stop()")
                answers = await ends
        equal(sorted(set(answers) - {"101", "503"}), [], f"other answers, with {turns} turns before the stop")


@check("STOP-9", wire=True)
async def who_asks_right_after_the_stop(bench: Bench) -> None:
    """A peer that is connected when stop() is called and asks right after that gets 503, and its connection ends."""
    async with bench.serve(bench.options()) as served:
        assert served.connector is not None
        async with served.raw() as peer:
            await asyncio.sleep(0.05)  # for the server to accept it; no event on this side tells when it has
            stopping = asyncio.ensure_future(served.connector.stop())
            await asyncio.sleep(0.02)
            await peer.request(handshake(served).encode())
            equal((await peer.read_response()).status, 503, "the status")
            await peer.wait_eof()
            await bench.within(stopping, "stop()")
    equal(bench.recorder.kinds(), [], "the callbacks")


# ---- HS-13: answers that are not read -------------------------------------------------------------------------------


def _large(context: Context) -> None:
    if context["request"].args.get("large"):
        context["response"] = Response(bytes(20_000_000), 200)


@contextlib.contextmanager
def _reads_nothing(served: Served) -> Generator[socket.socket, None, None]:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        sock.connect(served.address)
        sock.setblocking(False)
        yield sock


async def _descriptors_at_rest() -> int:
    """Return how many descriptors are open, when a server has closed those of connections that have ended."""
    count, seen = open_descriptors(), 0
    while seen < 5:
        await asyncio.sleep(0.02)
        now = open_descriptors()
        count, seen = now, seen + 1 if now == count else 0
    return count


async def _gone(bench: Bench, before: int, what: str) -> None:
    """Wait until the server's end of a connection is open, beside the peer's, and then until it is not."""
    if before:  # 0 where descriptors cannot be counted
        await bench.settle(lambda: open_descriptors() >= before + 2, f"the beginning of {what}")
    limit = 2 * _TIMEOUT + 4 * bench.scale
    await bench.settle(lambda: open_descriptors() <= before + 1, f"the end of {what}", timeout=limit)


@check("HS-13", wire=True)
async def a_large_answer(bench: Bench) -> None:
    """A peer that does not read a large answer, or a large refusal of a handshake, is cut off."""
    app = Application([("/", bench.options())], [Interceptor(name="large", enter=_large)])
    async with bench.serve(app, handshake_timeout=_TIMEOUT) as served:
        await ask(served, target="/nowhere")
        await open_what_stays()
        upgrade = handshake(served, "/?large=1").encode()
        plain = f"GET /?large=1 HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode()
        for request in (upgrade, plain):
            before = await _descriptors_at_rest()
            with _reads_nothing(served) as sock:
                sock.send(request)
                await _gone(bench, before, "the connection of a peer that does not read")
        async with served.peer() as peer:
            await peer.send_text("well")
            await bench.recorder.wait("text")


@check("HS-13", wire=True)
async def answers_without_end(bench: Bench) -> None:
    """A peer that goes on asking and reads nothing is cut off."""
    async with bench.serve(bench.options(), handshake_timeout=_TIMEOUT) as served:
        await ask(served, target="/nowhere")
        await open_what_stays()
        before = await _descriptors_at_rest()
        request = f"GET /nowhere HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode() * 500
        loop = asyncio.get_running_loop()
        with _reads_nothing(served) as sock:

            async def flood() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        await loop.sock_sendall(sock, request)

            flooding = asyncio.ensure_future(flood())
            try:
                await _gone(bench, before, "the connection of a peer that asks on and does not read")
            finally:
                flooding.cancel()
                await asyncio.wait((flooding,))


@check("HS-13", wire=True)
async def an_answer_and_then_a_channel(bench: Bench) -> None:
    """A channel on a connection that had an answer in plain HTTP before is not held to that deadline."""
    async with bench.serve(bench.options(), handshake_timeout=_TIMEOUT) as served:
        with socket.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, served.address)
            plain = f"GET /nowhere HTTP/1.1\r\nHost: {served.host}\r\n\r\n".encode()
            await loop.sock_sendall(sock, plain)
            first = await loop.sock_recv(sock, 65536)
            true(first.startswith(b"HTTP/1.1 404"), f"the answer was {first[:40]!r}")
            if b"connection: close" in first.lower():
                return  # then there is no second request on it
            await loop.sock_sendall(sock, handshake(served).encode())
            await bench.recorder.wait("open")
            channel: WebSocketChannel = bench.recorder.channels[0]
            sending = asyncio.ensure_future(channel.send_binary(bytes(20_000_000)))
            await asyncio.sleep(2 * _TIMEOUT)  # which it does not read
            equal(channel.reason, None, "the end of the channel")
        await bench.recorder.wait("close")
        await bench.within(sending, "the send")


# ---- CTX-6: cancelled handshakes ------------------------------------------------------------------------------------


@check("CTX-6")
async def a_handshake_that_a_stop_cancels(bench: Bench) -> None:
    """At a stop the error stages of all that entered run to their end, in reverse; the peer gets 503."""
    log: list[str] = []

    def interceptor(name: str, *, waits: bool = False) -> Interceptor:
        async def enter(context: Context) -> None:
            log.append(f"enter {name}")
            if waits:
                bench.recorder.log("waits")
                await asyncio.Event().wait()

        async def error(context: Context, exception: BaseException) -> Context:
            await asyncio.sleep(0.02)
            log.append(f"{type(exception).__name__} {name}")
            return context

        return Interceptor(name=name, enter=enter, error=error, leave=lambda context: log.append(f"leave {name}"))

    chain = [interceptor("first"), interceptor("second", waits=True), interceptor("third")]
    async with bench.serve(Application([("/", bench.options())], chain)) as served:
        assert served.connector is not None
        async with served.raw() as peer:
            await peer.request(handshake(served).encode())
            await bench.recorder.wait("waits")
            stopping = asyncio.ensure_future(served.connector.stop())
            equal((await peer.read_response()).status, 503, "the status")
            await bench.within(stopping, "stop()")
    expected = ["enter first", "enter second", "CancelledError second", "CancelledError first"]
    equal(log, expected, "the stages that ran")


@check("CTX-6")
async def a_stage_that_raises_cancelled_error(bench: Bench) -> None:
    """A CancelledError of a stage's own is a failure: the error stages run, and the peer gets 500."""
    log: list[str] = []

    async def enter(context: Context) -> None:
        raise asyncio.CancelledError

    chain = [
        Interceptor(name="first", error=lambda context, exception: log.append(type(exception).__name__)),
        Interceptor(name="second", enter=enter),
    ]
    async with bench.serve(Application([("/", bench.options())], chain)) as served:
        equal((await ask(served)).status, 500, "the status")
    equal(log, ["CancelledError"], "the error stages")
