"""The tool that asks what the conformance suite catches: its mutants, what it leaves out, and its figures."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.mutants import figures, workers
from tools.mutants.__main__ import EXCEPTIONS, FILES, PACKAGE, SOURCE, sources
from tools.mutants.exceptions import Exceptions, StaleError
from tools.mutants.killing import Killer, Store
from tools.mutants.mutation import mutants_of
from tools.mutants.reach import record

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parent.parent

TINY = """
LIMIT = 10


def is_large(n):
    return n > LIMIT


def at_least_nothing(n):
    if n >= 0:
        return n
    return 0


def counted_down(n):
    while n > 0:
        n -= 1
    return n


def never():
    return 1
"""


def changes(source: str) -> set[str]:
    return {mutant.change for mutant in mutants_of(source, "x.py")}


# ---- mutants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {"a < b -> pass", "a < b -> a <= b"}),
        ("x = a < b <= c", {"a < b <= c -> a <= b <= c", "a < b <= c -> a < b < c"}),
        ("x = a is not b", {"a is not b -> a is b"}),
        ("x = a not in b", {"a not in b -> a in b"}),
        ("x = a and b", {"a and b -> a or b"}),
        ("x = not a", {"not a -> a"}),
        ("x = a + 2", {"a + 2 -> a - 2", "2 -> 3"}),
        ("x = 0.5, True", {"0.5 -> 1.5", "True -> False"}),
        ("x = 1 if a else b", {"1 -> 2", "a -> False", "a -> True"}),
        ("x = [a for a in b if c]", {"c -> False", "c -> True"}),
        ("self.x = y", {"self.x = y -> pass"}),
        ("x += y", {"x += y -> pass", "x += y -> x -= y"}),
        ("while a:\n    break", {"a -> False", "break -> pass"}),
        ("for a in b:\n    continue", {"b -> ()", "continue -> pass"}),
        ("def f():\n    return x", {"return x -> return None"}),
        ("def f():\n    return", {"return -> pass"}),
        ("if a:\n    raise E", {"a -> False", "a -> True", "raise E -> pass"}),
        ("try:\n    f()\nexcept E:\n    pass", {"f() -> pass", "E -> ()"}),
        ("with contextlib.suppress(E):\n    f()", {"contextlib.suppress(E) -> contextlib.suppress()", "f() -> pass"}),
        ("async def f():\n    await g()", {"await g() -> pass"}),
    ],
)
def test_what_is_changed(source: str, expected: set[str]) -> None:
    assert changes(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "def f(a: int | None) -> list[1]: ...",
        "x: TypeAlias = int | None",
        'T = TypeVar("T", bound=int | str)',
        "class A(Protocol):\n    x = 1",
        "class A:\n    @abstractmethod\n    def f(self): return 1",
        "@overload\ndef f(x=1): ...",
        "assert a < b",
        "Stage = Callable[[int | None], None]",
        "Raw = str | bytes",
        "Handler = Options[Any] | Sequence[int | str]",
        "__all__ = [1]",
        "if sys.version_info >= (3, 12):\n    f()",
        "def f():\n    raise NotImplementedError",
        'x = f"{a + 1}"',
        "x = cast(int | None, y)",
        "import a",
    ],
)
def test_what_is_left_alone(source: str) -> None:
    assert changes(source) == set()


def test_a_mutant_differs_in_its_place_alone() -> None:
    source = "def f(a, b):\n    'é'; x(a\n      < b)\n    return not (a or b)\n"
    texts = {mutant.change: mutant.applied_to(source) for mutant in mutants_of(source, "x.py")}
    assert texts["a < b -> a <= b"] == "def f(a, b):\n    'é'; x((a <= b\n))\n    return not (a or b)\n"
    assert texts["not (a or b) -> a or b"] == "def f(a, b):\n    'é'; x(a\n      < b)\n    return (a or b)\n"
    assert texts["x(a < b) -> pass"] == "def f(a, b):\n    'é'; pass\n\n    return not (a or b)\n"


def test_a_mutant_knows_its_place() -> None:
    source = "class A:\n    x = 1\n\n    def f(self):\n        g(\n            1)\n        g(1)\n        g(1)\n"
    found = [mutant for mutant in mutants_of(source, "x.py") if mutant.change == "1 -> 2"]
    assert [(one.function, one.lines, one.names, one.number) for one in found] == [
        ("A", (2,), ("x",), 0),
        ("A.f", (5, 6), None, 0),
        ("A.f", (7,), None, 0),
        ("A.f", (8,), None, 1),
    ]


def test_every_mutant_of_the_source_is_python_and_has_a_key_of_its_own() -> None:
    for file, text in sources(ROOT).items():
        mutants = mutants_of(text, file)
        assert len({mutant.key for mutant in mutants}) == len(mutants)
        for mutant in mutants[::97]:  # a part of them, for time
            assert ast.dump(ast.parse(mutant.applied_to(text))) != ast.dump(ast.parse(text)), mutant


def test_each_pattern_means_files() -> None:
    for pattern in FILES:
        assert list((ROOT / SOURCE / PACKAGE).glob(pattern)), pattern


# ---- what is left out -----------------------------------------------------------------------------------------------


def test_the_committed_exceptions_match_mutants() -> None:
    mutants = [mutant for file, text in sources(ROOT).items() for mutant in mutants_of(text, file)]
    Exceptions.load(ROOT / EXCEPTIONS).check(mutants)


ENTRY = (
    '[[equivalent]]\nfile = "tiny.py"\nfunction = "f"\nline = "return a < 1"\nchange = "a < 1 -> a <= 1"\nwhy = "x"\n'
)
LIBRARY = '[[library]]\nfile = "tiny.py"\nfunction = "A"\nwhy = "LIM-5"\n'
WITH_BOTH = "def f(a):\n    return a < 1\n\n\nclass A:\n    def g(self):\n        return 1\n\n\ndef h(): return 1"


def exceptions(tmp_path: Path, text: str) -> Exceptions:
    path = tmp_path / "equivalent.toml"
    path.write_text(text)
    return Exceptions.load(path)


def test_what_an_entry_takes_in(tmp_path: Path) -> None:
    found = exceptions(tmp_path, ENTRY + LIBRARY)
    mutants = mutants_of(WITH_BOTH, "tiny.py")
    found.check(mutants)
    assert {(mutant.function, mutant.change): found.of(mutant) for mutant in mutants} == {
        ("f", "return a < 1 -> return None"): "",
        ("f", "a < 1 -> a <= 1"): "equivalent",
        ("f", "1 -> 2"): "",
        ("A.g", "return 1 -> return None"): "library",
        ("A.g", "1 -> 2"): "library",
        ("h", "return 1 -> return None"): "",
        ("h", "1 -> 2"): "",
    }


def test_an_entry_for_lines(tmp_path: Path) -> None:
    source = "def h():\n    x = 1\n    y = 2\n"
    found = exceptions(tmp_path, LIBRARY.replace('"A"', '"h"\nlines = ["x = 1"]'))
    assert [(mutant.line, found.of(mutant)) for mutant in mutants_of(source, "tiny.py")] == [
        ("x = 1", "library"),
        ("y = 2", ""),
    ]
    with pytest.raises(StaleError, match=r"no mutant is tiny\.py \| h \| x = 1"):
        found.check(mutants_of(source.replace("x = 1", "x = 3"), "tiny.py"))


@pytest.mark.parametrize("source", [WITH_BOTH.replace("a < 1", "a < 2"), WITH_BOTH.replace("class A", "class B")])
def test_an_entry_that_matches_nothing(tmp_path: Path, source: str) -> None:
    with pytest.raises(StaleError, match=r"no mutant is tiny\.py \| [fA]"):
        exceptions(tmp_path, ENTRY + LIBRARY).check(mutants_of(source, "tiny.py"))


@pytest.mark.parametrize(
    "text",
    [ENTRY + ENTRY, LIBRARY + LIBRARY, ENTRY.replace("why", "because"), ENTRY.replace('"x"', '" "'), "[[others]]\n"],
)
def test_a_file_of_exceptions_that_is_wrong(tmp_path: Path, text: str) -> None:
    with pytest.raises(StaleError, match=r"equivalent\.toml"):
        exceptions(tmp_path, text)


# ---- killing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[workers.Copy]:
    monkeypatch.setattr(workers, "_GRACE", 1.0)
    (tmp_path / "src" / "tiny").mkdir(parents=True)
    (tmp_path / "src" / "tiny" / "__init__.py").write_text(TINY)
    with workers.Copy(tmp_path / "src", "tiny", suite="tests.mutants_suite", root=ROOT) as copy:
        yield copy


@pytest.mark.skipif(sys.version_info < (3, 12), reason="lines are recorded by sys.monitoring, of Python 3.12")
def test_what_is_killed_and_what_survives(copy: workers.Copy, tmp_path: Path) -> None:
    told: list[str] = []
    reach = record(copy, tmp_path / "reach.json", "fails", told.append)
    assert any("fails without a mutant" in text for text in told)
    assert reach.reaching([("__init__.py", 6)]) == {"is-large"}
    store = Store(tmp_path / "found.jsonl")
    killer = Killer({"__init__.py": TINY}, [reach], store)
    mutants = mutants_of(TINY, "__init__.py")
    judged = {mutant: killer.judge(copy, mutant) for mutant in mutants}
    found = {(mutant.function, mutant.line, mutant.change): one for mutant, one in judged.items()}
    killed = {(place[0], place[2]): one.check for place, one in found.items() if one.check}
    assert killed == {
        ("", "10 -> 11"): "is-large",
        ("is_large", "n > LIMIT -> n >= LIMIT"): "is-large",
        ("is_large", "return n > LIMIT -> return None"): "is-large",
        ("at_least_nothing", "n >= 0 -> True"): "at-least-nothing",
        ("at_least_nothing", "n >= 0 -> False"): "at-least-nothing",
        ("at_least_nothing", "return n -> return None"): "at-least-nothing",
        ("at_least_nothing", "return 0 -> return None"): "at-least-nothing",
        ("at_least_nothing", "0 -> 1"): "at-least-nothing",
        ("counted_down", "n > 0 -> False"): "counts-down",
        ("counted_down", "n > 0 -> n >= 0"): "counts-down",
        ("counted_down", "0 -> 1"): "counts-down",
        ("counted_down", "n -= 1 -> pass"): "counts-down",
        ("counted_down", "n -= 1 -> n += 1"): "counts-down",
        ("counted_down", "1 -> 2"): "counts-down",
        ("counted_down", "return n -> return None"): "counts-down",
    }
    survivors = {place: one.is_reached for place, one in found.items() if not one.check}
    assert survivors == {
        ("at_least_nothing", "if n >= 0:", "n >= 0 -> n > 0"): True,  # which changes nothing
        ("at_least_nothing", "if n >= 0:", "0 -> 1"): True,  # this neither
        ("never", "return 1", "return 1 -> return None"): False,
        ("never", "return 1", "1 -> 2"): False,
    }
    assert "hung" in found["counted_down", "n -= 1", "n -= 1 -> pass"].message
    assert (copy.package / "__init__.py").read_text() == TINY
    again = Store(tmp_path / "found.jsonl")  # a later run goes on with it
    assert {mutant: again.get(mutant) for mutant in mutants} == judged


def test_a_package_from_elsewhere_is_refused(copy: workers.Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "source", copy.source.parent / "elsewhere")
    with pytest.raises(workers.SilentError, match=r"ended with 1") as info:
        copy.checks("fails")
    assert "tiny" in info.value.__notes__[0]


# ---- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(95, 100, 0.8882, 0.9785), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_the_interval_of_wilson(successes: int, trials: int, low: float, high: float) -> None:
    assert figures.wilson(successes, trials) == pytest.approx((low, high), abs=0.0001)


def test_the_figures() -> None:
    counts = figures.counted(
        [
            ("stream.py", "killed", False),
            ("connectors/aiohttp.py", "killed", False),
            ("connectors/aiohttp.py", "killed", False),
            ("connectors/aiohttp.py", "survived", True),
            ("connectors/tornado.py", "unreached", False),
            ("connectors/tornado.py", "equivalent", False),
            ("connectors/tornado.py", "library", False),
        ]
    )
    assert figures.table(counts).splitlines()[2:] == [
        "| `connectors/aiohttp.py` | 3 | 2 | 1 | 0 | 0 | 0 | 66.7 % |",
        "| `connectors/tornado.py` | 3 | 0 | 0 | 1 | 1 | 1 | 0.0 % |",
        "| **The connectors** | 6 | 2 | 1 | 1 | 1 | 1 | 50.0 % |",
        "| `stream.py` | 1 | 1 | 0 | 0 | 0 | 0 | 100.0 % |",
        "| **The core** | 1 | 1 | 0 | 0 | 0 | 0 | 100.0 % |",
    ]
    connectors = figures.total(counts, "connectors")
    assert figures.figure(connectors, "connectors", whole=True) == (
        "The connectors: 2 of 4 mutants are killed, 50.0 %; the bar is 95 %. "
        "For 1 that survived not all checks were run."
    )
    assert "between 15.0 and 85.0 %" in figures.figure(connectors, "connectors", whole=False)
    page = figures.page(counts, date="2026-01-01", versions="Python 3.13", sample="a sample.", whole=False)
    assert page.startswith("# What the conformance suite catches\n")
    assert "2026-01-01, Python 3.13; a sample." in page
    assert figures.table(counts) in page
