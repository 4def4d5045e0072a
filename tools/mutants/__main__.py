"""Puts faults into the connectors and the core, and tells which of them the conformance suite catches."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from tools.mutants import figures
from tools.mutants.exceptions import Exceptions, StaleError
from tools.mutants.killing import Found, Killer, Store, source_hash
from tools.mutants.mutation import Mutant, mutants_of
from tools.mutants.reach import Reach, record
from tools.mutants.workers import Copy
from wsbridge.registry import SERVERS

__all__ = ["EXCEPTIONS", "FILES", "PACKAGE", "SOURCE", "main", "sources"]

TARGETS = ("memory", *SERVERS, "tools.stock:Uvicorn")  # the last for `asgi_app`, on a server as it is
SOURCE, PACKAGE = Path("src"), "wsbridge"
CACHE = Path(".mutants")
EXCEPTIONS = Path("tools", "mutants", "equivalent.toml")
DOCS = Path("docs", "mutants.md")
_CORE = (
    "application",
    "close",
    "codec",
    "connection",
    "http",
    "interceptor",
    "options",
    "refusal",
    "stream",
    "tls",
    "upgrade",
)
FILES = (
    "connectors/**/*.py",
    "_channel/*.py",
    "connector/*.py",
    "_common/[!r]*.py",  # not the requirements of distributions (REG)
    *(f"{name}.py" for name in _CORE),
)
"""What is looked at."""

LIMIT, SEED, PATIENCE = 80, 1, 120.0

T = TypeVar("T")
R = TypeVar("R")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; return 1 if a bar is missed."""
    options = _parser().parse_args(arguments)
    texts = sources(Path())
    everything = {file: mutants_of(text, file) for file, text in texts.items()}
    exceptions = Exceptions.load(EXCEPTIONS)
    try:
        exceptions.check(mutant for mutants in everything.values() for mutant in mutants)
    except StaleError as exc:
        print(exc, file=sys.stderr)
        return 2
    chosen = _chosen(everything, options.file, None if options.all else options.limit, options.seed)
    if not chosen:
        print("no file is meant by --file", file=sys.stderr)
        return 2
    cache = CACHE / source_hash(texts)
    store = Store(cache / "found.jsonl")
    if not options.survivors:
        _run(options, texts, [mutant for mutant in chosen if not exceptions.of(mutant)], cache, store)
    if options.unreached:
        return 0
    states = {mutant: _state(mutant, exceptions, store.get(mutant)) for mutant in chosen}
    _tell_survivors(states, store)
    found = [
        (mutant.file, state, (known := store.get(mutant)) is not None and known.short and state == "survived")
        for mutant, state in states.items()
        if state
    ]
    counts = figures.counted(found)
    whole = options.all and not options.file
    print(figures.table(counts))
    for group in figures.GROUPS:
        print(figures.figure(figures.total(counts, group), group, whole=whole))
    if unknown := sum(not state for state in states.values()):
        print(f"{unknown} mutants have not been looked at yet")
    if options.write:
        if options.file or unknown:
            print(
                "--write is for all files and connectors, when all that was asked for has been looked at",
                file=sys.stderr,
            )
            return 2
        DOCS.write_text(_page(counts, options, len(chosen), whole=whole), encoding="utf-8")
        print(f"wrote {DOCS}")
    return int(
        any(
            100 * (count := figures.total(counts, group)).killed < bar * count.judged
            for group, bar in figures.BARS.items()
        )
    )


def sources(root: Path) -> dict[str, str]:
    """Return the text of each module that is looked at, by its path in the package."""
    package = root / SOURCE / PACKAGE
    paths = {path for pattern in FILES for path in package.glob(pattern)}
    return {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--all", action="store_true", help="look at every mutant, and run all checks that reach it")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, metavar="N", help=f"of each group look at N, by default {LIMIT}"
    )
    parser.add_argument("--seed", type=int, default=SEED, metavar="S", help=f"which N: by default {SEED}")
    parser.add_argument(
        "--file", action="append", default=[], metavar="PATTERN", help="look at these files alone, such as 'stream.py'"
    )
    parser.add_argument(
        "--target", action="append", default=[], choices=TARGETS, help="run checks on these connectors alone"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="run so many side by side")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help=f"of checks that a mutant is shown to; by default {PATIENCE:g}, with --all no limit",
    )
    parser.add_argument("--survivors", action="store_true", help="run nothing: tell what is known")
    parser.add_argument("--unreached", action="store_true", help="run no mutants: list those that no check reaches")
    parser.add_argument("--write", action="store_true", help=f"write {DOCS.as_posix()}")
    return parser


def _chosen(
    everything: Mapping[str, Sequence[Mutant]], patterns: Sequence[str], limit: int | None, seed: int
) -> list[Mutant]:
    """Return the mutants to look at: of each group the first ``limit`` in an order that the seed gives."""

    def order(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed}\n{mutant.key}".encode()).digest()

    chosen: list[Mutant] = []
    for group in figures.GROUPS:
        mutants = [
            mutant
            for file, found in everything.items()
            if figures.group_of(file) == group and (not patterns or any(fnmatch(file, one) for one in patterns))
            for mutant in found
        ]
        chosen += sorted(mutants, key=order)[:limit]
    return chosen


def _run(
    options: argparse.Namespace, texts: Mapping[str, str], mutants: Sequence[Mutant], cache: Path, store: Store
) -> None:
    """Look at mutants."""
    with ExitStack() as stack:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for _ in range(options.jobs):
            copies.put(stack.enter_context(Copy(SOURCE, PACKAGE, root=Path.cwd())))

        def recorded(copy: Copy, target: str) -> Reach:
            return record(copy, cache / f"{target.replace(':', '-')}.json", target, _tell)

        reaches = _each(copies, options.jobs, options.target or TARGETS, recorded)
        killer = Killer(texts, reaches, store, patience=_patience(options))
        if options.unreached:
            unreached = [mutant for mutant in mutants if not killer.is_reached(mutant)]
            for place in dict.fromkeys(
                f"{one.file}:{one.lines[0]} {one.function}\n    {one.line}" for one in unreached
            ):
                print(place)
            print(f"{len(unreached)} of {len(mutants)} mutants are in lines that no check runs")
            return
        lock, done, started = threading.Lock(), 0, time.monotonic()

        def judged(copy: Copy, mutant: Mutant) -> Found:
            nonlocal done
            found = killer.judge(copy, mutant)
            with lock:
                done += 1
                if not found.check or done % 20 == 0:
                    state = (
                        f"killed by {found.check}" if found.check else "survived" if found.is_reached else "unreached"
                    )
                    _tell(f"{done} of {len(mutants)}, {time.monotonic() - started:.0f} s: {_shown(mutant)}: {state}")
            return found

        _each(copies, options.jobs, mutants, judged)


def _each(copies: queue.SimpleQueue[Copy], jobs: int, items: Sequence[T], work: Callable[[Copy, T], R]) -> list[R]:
    """Do ``work`` for each item, side by side, each time with a copy that nothing else uses."""

    def one(item: T) -> R:
        copy = copies.get()
        try:
            return work(copy, item)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _shown(mutant: Mutant) -> str:
    return f"{mutant.file}:{mutant.lines[0]} {mutant.function}: {mutant.change}"


def _state(mutant: Mutant, exceptions: Exceptions, found: Found | None) -> str:
    """Return the attribute of `figures.Count` that a mutant belongs to; "" if it has not been looked at."""
    if kind := exceptions.of(mutant):
        return kind
    if found is None:
        return ""
    return "killed" if found.check else "survived" if found.is_reached else "unreached"


def _tell_survivors(states: Mapping[Mutant, str], store: Store) -> None:
    for mutant, state in sorted(states.items(), key=lambda pair: (pair[0].file, pair[0].lines)):
        if state in ("survived", "unreached"):
            found = store.get(mutant)
            tried = sum(map(len, found.tried.values())) if found is not None else 0
            print(f"{state}, {tried} checks: {_shown(mutant)}\n    {mutant.line}")


def _page(counts: Mapping[str, figures.Count], options: argparse.Namespace, chosen: int, *, whole: bool) -> str:
    names = ("aiohttp", "websockets", "tornado", "picows", "uvicorn", "wsproto", "hypercorn", "granian")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    sample = "all mutants" if whole else f"a sample of {chosen} mutants, drawn with the seed {options.seed}"
    patience = _patience(options)
    if patience < float("inf"):
        sample += f", each shown to at most {patience:g} s of checks"
    if options.target:
        sample += f", on {', '.join(options.target)} alone"
    return figures.page(
        counts,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        versions=f"Python {platform.python_version()}, {versions}",
        sample=f"{sample}.",
        whole=whole,
    )


def _patience(options: argparse.Namespace) -> float:
    """Return the seconds of checks that a mutant is shown to."""
    return float(options.patience or (float("inf") if options.all else PATIENCE))


if __name__ == "__main__":
    raise SystemExit(main())
