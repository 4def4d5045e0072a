"""Flame graphs of the echo of 64 bytes, by py-spy: where the time of a server goes.

Example:
    python -m benchmarks.flame --connector aiohttp websockets
"""

import argparse
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks.processes import MissingError, VoidRunError, drive, serving
from benchmarks.subjects import connectors

SECONDS = 6


def record(name: str, path: Path, *, rate: int) -> None:
    """Draw the flame graph of a subject under load.

    Raises:
        MissingError: It cannot be had.
        VoidRunError: It, the load or py-spy failed.
    """
    with serving(name) as server:
        ended = threading.Event()

        def load() -> None:
            while not ended.is_set():
                drive([server], "echo", messages=40_000, slices=1)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            command = ["py-spy", "record", f"--output={path}", f"--pid={server.process.pid}", f"--duration={SECONDS}"]
            done = subprocess.run([*command, f"--rate={rate}"], capture_output=True, text=True, check=False)
        finally:
            ended.set()
            thread.join()
        if done.returncode:
            raise VoidRunError(f"py-spy failed: {done.stderr}")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.flame"
    )
    parser.add_argument("--connector", nargs="+", default=connectors())
    parser.add_argument("--folder", type=Path, default=Path(), help="where flame-CONNECTOR.svg goes; the current one")
    parser.add_argument("--rate", type=int, default=200, help="samples a second")
    args = parser.parse_args()
    if shutil.which("py-spy") is None:
        parser.error("py-spy is not installed: pip install py-spy")
    for connector in args.connector:
        path = args.folder / f"flame-{connector}.svg"
        try:
            record(f"wsbridge-{connector}", path, rate=args.rate)
        except MissingError as exc:
            print(f"left out: {connector} ({exc})")
        except VoidRunError as exc:
            print(f"VOID: {exc}", file=sys.stderr)
            return 1
        else:
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
