"""Charts as small SVG: text is text, and each bar or line of the chart is one line of the file."""

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import cycle

__all__ = ["bars", "lines"]

WIDTH = 768
FONT = 13
LETTER = 7.5  # of a letter, in pixels: wider than most are, since every system has its own font
ROW = 30
OURS, NATIVE, OTHER = "#1f6f8b", "#c9a227", "#9a9a9a"
SERVERS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
STYLE = ".axis{fill:none;stroke:#222}.right{text-anchor:end}.middle{text-anchor:middle}.line{fill:none;stroke-width:2}"


def bars(title: str, label: str, rows: Sequence[tuple[str, float]]) -> str:
    """Draw horizontal bars, wsbridge's in its own colour; return the SVG.

    Args:
        title: What stands above.
        label: What is measured, and its unit.
        rows: The name and the figure of each bar, from above.
    """
    left, top = 16 + _width(name for name, _ in rows), 34
    bottom = top + ROW * len(rows)
    most = max(value for _, value in rows)
    scale = (WIDTH - left - 60) / most

    def drawn() -> Iterator[str]:
        for number, (name, value) in enumerate(rows):
            y, end = top + ROW * number, left + scale * value
            ours, native = name.startswith("wsbridge"), name.startswith("native")
            yield (
                f"{_text(left - 8, y + 19, name, 'right')}"
                f'<rect x="{left}" y="{y + 3}" width="{_digits(end - left)}" height="24"'
                f' fill="{OURS if ours else NATIVE if native else OTHER}"/>'
                f"{_text(end + 5, y + 19, f'{value:.3g}')}"
            )
        for value in ticks(most):
            x = left + scale * value
            yield f"{_path([(x, bottom), (x, bottom + 5)], 'axis')}{_text(x, bottom + 19, f'{value:g}', 'middle')}"
        yield _path([(left, top), (left, bottom), (WIDTH - 10, bottom)], "axis")
        yield _text((left + WIDTH) / 2, bottom + 39, label, "middle")

    return _svg(title, left, bottom + 48, drawn())


def lines(title: str, labels: tuple[str, str], series: dict[str, list[tuple[float, float]]]) -> str:
    """Draw lines over a logarithmic axis, a native one dashed, wsbridge's on that server as coloured; return the SVG.

    Args:
        title: What stands above.
        labels: What the axes are, from left to right and from below.
        series: The points of each line, by its name.
    """
    left, right, top, bottom = 60, WIDTH - 60 - _width(series), 34, 340
    points = [point for line in series.values() for point in line]
    low, high = (math.log10(end(x for x, _ in points)) for end in (min, max))
    most = max(y for _, y in points) * 1.04
    colours = dict(zip(dict.fromkeys(name.partition("-")[2] for name in series), cycle(SERVERS), strict=False))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low) / (high - low)
        return left + 20 + (right - left - 40) * across, bottom - (bottom - top) * y / most

    def drawn() -> Iterator[str]:
        for number, (name, line) in enumerate(series.items()):
            places = [at(*point) for point in line]
            beside = top + 8 + 22 * number
            dashed = ' stroke-dasharray="7 4"' if name.startswith("native") else ""
            colour = colours[name.partition("-")[2]]
            dots = "".join(f'<circle cx="{_digits(x)}" cy="{_digits(y)}" r="4" fill="{colour}"/>' for x, y in places)
            yield (
                f'<g class="line" stroke="{colour}"{dashed}>'
                f"{_path(places)}{_path([(right + 12, beside), (right + 44, beside)])}</g>"
                f"{dots}{_text(right + 52, beside + 4, name)}"
            )
        for exponent in range(math.ceil(low), math.floor(high) + 1):
            x, _ = at(10**exponent, 0)
            name = f"{10**exponent:,}"
            yield f"{_path([(x, bottom), (x, bottom + 5)], 'axis')}{_text(x, bottom + 19, name, 'middle')}"
        for value in ticks(most):
            _, y = at(10**low, value)
            yield f"{_path([(left - 5, y), (left, y)], 'axis')}{_text(left - 8, y + 4, f'{value:g}', 'right')}"
        yield _path([(left, top), (left, bottom), (right, bottom)], "axis")
        yield _text((left + right) / 2, bottom + 39, labels[0], "middle")
        middle = (top + bottom) / 2
        turned = f' transform="rotate(-90 16 {_digits(middle)})"'
        yield _text(16, middle, labels[1], "middle", turned)

    return _svg(title, left, bottom + 48, drawn())


def ticks(most: float) -> list[float]:
    """Return what an axis from 0 to ``most`` names: up to seven round numbers."""
    power = 10 ** math.floor(math.log10(most))
    step = next(step for step in (power / 5, power / 2, power, 2 * power) if most / step < 7)
    return [step * number for number in range(int(most / step) + 1)]


def _svg(title: str, left: float, height: int, drawn: Iterator[str]) -> str:
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="{FONT}">',
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',  # so that it can be read on a dark page
        f'<text x="{_digits(left)}" y="20" font-size="16">{escape(title)}</text>',
    ]
    return "\n".join([*head, *drawn, "</svg>"]) + "\n"


def _width(names: Iterable[str]) -> int:
    """Return the pixels that the longest of some names needs at most."""
    return math.ceil(LETTER * max(map(len, names)))


def _digits(number: float) -> str:
    return f"{round(number, 1):g}"


def _text(x: float, y: float, text: str, style: str = "", more: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{_digits(x)}" y="{_digits(y)}"{named}{more}>{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]], style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<path{named} d="M{" L".join(f"{_digits(x)} {_digits(y)}" for x, y in points)}"/>'
