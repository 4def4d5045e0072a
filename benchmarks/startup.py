"""How long a server takes to start: until its first handshake is answered, and what its imports take of that.

Nothing of this repeats in a process, so each figure is of a fresh one; bytecode is compiled before.
"""

import json
import os
import subprocess
import sys
import time

from benchmarks.processes import ROOT, Figures, VoidRunError, cores, serving
from benchmarks.wire import CLOSE, connect, cpu_seconds

SETTLE_SECONDS = 0.02

NATIVE_IMPORTS = {
    "native-aiohttp": "import aiohttp.web",
    "native-websockets": "import websockets.asyncio.server",
    "native-tornado": "import tornado.httpserver, tornado.web, tornado.websocket",
    "native-picows": "import picows",
    "native-uvicorn": "import uvicorn, uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto",
    "native-hypercorn": "import hypercorn.asyncio, hypercorn.config",
}
"""What each native subject, and the server when it starts, imports."""

_TIMED = """
import sys, time
wall, cpu, modules = time.perf_counter(), time.process_time(), len(sys.modules)
{}
wall, cpu, modules = time.perf_counter() - wall, time.process_time() - cpu, len(sys.modules) - modules
import json
print(json.dumps({{"import ms": wall * 1e3, "import CPU ms": cpu * 1e3, "modules": modules}}))
"""


def startup(name: str) -> Figures:
    """Start a subject, shake hands, and end it; then import in another process what it imports.

    Raises:
        MissingError: It cannot be had.
        VoidRunError: It did not start or end, or cannot be imported.
    """
    start = time.perf_counter()
    with serving(name) as server, connect(server.port) as sock:
        seconds = time.perf_counter() - start
        time.sleep(SETTLE_SECONDS)
        cpu = cpu_seconds(server.process.pid)
        sock.sendall(CLOSE)
        while sock.recv(4096):
            pass
    return {"ms": seconds * 1e3, "CPU ms": cpu * 1e3, **imports(name)}


def imports(name: str) -> Figures:
    """Return the milliseconds that the imports of a subject take in a fresh interpreter, and how many modules."""
    statement = NATIVE_IMPORTS.get(name)
    if statement is None:
        statement = f"import wsbridge; wsbridge.load_connector({name.removeprefix('wsbridge-')!r})"
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(statement)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {cores()[0]}),
    )
    if done.returncode:
        raise VoidRunError(f"{statement!r} failed: {done.stderr}")
    figures: Figures = json.loads(done.stdout)
    return figures
