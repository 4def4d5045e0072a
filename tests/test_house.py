"""How the files of a connector are laid out: parts in one order, none too long, and one table of private names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import wsbridge
from wsbridge._channel.published import CHANNEL, CONNECTOR

ROOT = Path(__file__).parent.parent
SOURCE = Path(wsbridge.__file__).parent / "connectors"
EXAMPLES = sorted((ROOT / "examples").glob("wsbridge-*/src/*/*.py"))
FILES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))} | {
    f"{path.parent.name}.py" if path.stem == "__init__" else f"_{path.parent.name}{path.stem}.py": path
    for path in EXAMPLES
}
"""By name: those of wsbridge, and those of the examples as they would be called among them."""

CONNECTORS = sorted(name for name in FILES if not name.startswith("_"))

PARTS = ("the channel", "the source", "the connector", "the receiving side")
"""In this order, after the docstring, the imports and the table of private names."""

MAX_FILE, MAX_CLASS = 500, 200  # lines
NO_SERVER = {"asgi.py", "memory.py"}
"""They use nothing of a server, whose private names they could list."""

STILL: Mapping[str, set[str]] = {
    "parts": set(),
    "files": set(),
    "classes": {"_memory_client.py: Connection"},
    "tables": set(),
}
"""What is not so yet. An entry that is no longer needed fails, too."""


def holds(rule: str, broken: Mapping[str, object]) -> None:
    """Make sure that a rule is broken where it is known to be, and nowhere else.

    Args:
        rule: Of `STILL`.
        broken: What is wrong, by where.
    """
    assert {where: what for where, what in broken.items() if where not in STILL[rule]} == {}
    assert sorted(STILL[rule] - set(broken)) == [], f"take them out of STILL[{rule!r}]: they keep the rule now"


def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def classes(name: str) -> Iterator[ast.ClassDef]:
    return (node for node in tree(name).body if isinstance(node, ast.ClassDef))


# ---- parts ----------------------------------------------------------------------------------------------------------


def headings(name: str) -> list[tuple[str, int]]:
    """Return the headings of a file's parts, each with its line."""
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    found = [(re.fullmatch(r"# ---- (.*?) -+", line), number) for number, line in enumerate(lines, 1)]
    return [(match[1], number) for match, number in found if match is not None]


def part_of(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """Return the part that something must stand in, if it is one of those that a part is named for."""
    if not isinstance(node, ast.ClassDef):
        return "the receiving side" if node.name == "mount" else None
    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    if node.name.endswith("Channel") and any(base.endswith("Channel") for base in bases):
        return "the channel"
    if any(base.endswith("Source") for base in bases):
        return "the source"
    return "the connector" if node.name == "Connector" else None


def misplaced(name: str) -> list[str]:
    found = headings(name)
    if tuple(heading for heading, _ in found) != PARTS:
        return [f"it has the parts {[heading for heading, _ in found]}"]
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    ends = [number for _, number in found[1:]] + [len(lines) + 1]
    wrong: list[str] = []
    for (heading, start), end in zip(found, ends, strict=True):
        if not any(line.strip() for line in lines[start : end - 1]):
            wrong.append(f"{heading}: it is empty, and no comment says where it is")
    for node in tree(name).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        stands_in = [heading for heading, start in found if start < node.lineno]
        if not stands_in:
            wrong.append(f"{node.name} stands before the first part")
        elif part_of(node) not in (None, stands_in[-1]):
            wrong.append(f"{node.name} stands in {stands_in[-1]}")
    return wrong


def test_the_parts_of_a_connector_stand_in_one_order() -> None:
    holds("parts", {name: wrong for name in CONNECTORS if (wrong := misplaced(name))})


@pytest.mark.parametrize("name", CONNECTORS)
def test_a_connector_begins_with_its_map(name: str) -> None:
    docstring = ast.get_docstring(tree(name))
    assert docstring is not None
    assert len(docstring.splitlines()) > 5


# ---- lengths --------------------------------------------------------------------------------------------------------


def test_no_file_is_too_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    holds("files", {name: length for name, length in lengths.items() if length > MAX_FILE})


def test_no_class_is_too_long() -> None:
    lengths = {
        f"{name}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for name in FILES for node in classes(name)
    }
    holds("classes", {name: length for name, length in lengths.items() if length > MAX_CLASS})


# ---- private names --------------------------------------------------------------------------------------------------


def beside(name: str) -> list[str]:
    """Return a connector's file and the private modules beside it that are its own."""
    stem = name.removesuffix(".py")
    shared = f"_codecs/{stem.partition('_')[0]}.py"  # by all connectors of one server
    return [other for other in FILES if other in (name, shared) or other.startswith(f"_{stem}_")]


def tables(name: str) -> list[Mapping[str, str]]:
    found = (node for node in ast.walk(tree(name)) if isinstance(node, ast.Assign))
    return [ast.literal_eval(node.value) for node in found if ast.unparse(node.targets[0]) == "_PRIVATE"]


def calls(name: str) -> list[str]:
    """Return the last argument of each look-up of a server's names."""
    found = (node for node in ast.walk(tree(name)) if isinstance(node, ast.Call))
    return [ast.unparse(node.args[-1]) for node in found if ast.unparse(node.func) == "server_names"]


def listed(name: str) -> set[str]:
    texts = (names for other in beside(name) for table in tables(other) for names in table.values())
    return {one for names in texts for one in re.split(r"[ |]", names)}


def test_a_connector_has_one_table_of_private_names_and_looks_them_up() -> None:
    with_server = [name for name in CONNECTORS if name not in NO_SERVER]
    found = {name: (len(tables(name)), calls(name)) for name in with_server}
    holds("tables", {name: what for name, what in found.items() if what != (1, ["_PRIVATE"])})
    assert [name for name in FILES if name.startswith("_") and len(tables(name)) != len(calls(name))] == []
    own = {other for name in with_server for other in beside(name) if not other.startswith("_codecs/")} - {*CONNECTORS}
    assert [name for name in own if tables(name)] == []


WITH_TABLES = [name for name in CONNECTORS if tables(name)]


@pytest.mark.parametrize("name", WITH_TABLES)
def test_what_is_listed_is_used(name: str) -> None:
    text = "\n".join(ast.unparse(without_table(other)) for other in beside(name))
    assert [one for one in sorted(listed(name)) if not re.search(rf"\b{one}\b", text)] == []


def without_table(name: str) -> ast.Module:
    found = tree(name)
    found.body = [
        node for node in found.body if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_PRIVATE")
    ]
    return found


@pytest.mark.parametrize("name", WITH_TABLES)
def test_what_is_used_is_listed(name: str) -> None:
    reached: set[str] = set()
    own = set(CHANNEL) | set(CONNECTOR)
    for other in beside(name):
        for node in ast.walk(tree(other)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                own.add(node.value)  # of __slots__
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
                is_own = ast.unparse(node.value) in ("self", "cls", "super()")
                if is_own and isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
                elif not is_own:
                    reached.add(node.attr)
    assert sorted(reached - own - listed(name)) == []
