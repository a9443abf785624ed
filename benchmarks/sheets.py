"""Tables as data, written as Markdown and LaTeX, and compared with each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ESCAPED |= {c: f"\\{c}" for c in "&%$#_{}"} | {">": r"$>$", "<": r"$<$", "≤": r"$\leq$", "≥": r"$\geq$", "–": "--"}


@dataclass(frozen=True)
class Figure:
    """A number with its interval.

    Attributes:
        value: The number.
        low: Lower bound.
        high: Upper bound.
        digits: Shown after the point.
        cap: What stands for infinity: the budget that a run was given.
        remark: Shown behind.
        is_elsewhere_too: Whether another machine should find the same.
    """

    value: float
    low: float
    high: float
    digits: int
    cap: float = math.inf
    remark: str = ""
    is_elsewhere_too: bool = True

    @property
    def number(self) -> str:
        """The value as text."""
        return self._shown(self.value)

    @property
    def interval(self) -> str:
        """The bounds as text."""
        return f"[{self._shown(self.low)}, {self._shown(self.high)}]"

    def _shown(self, value: float) -> str:
        return f"> {self.cap:g}" if math.isinf(value) else f"{value:.{self.digits}f}"

    def holds(self, value: float) -> bool:
        """Whether a value lies within the bounds, as they are shown."""
        slack = 0.5 * 10**-self.digits
        return self.low - slack <= value <= self.high + slack


Entry = str | Figure


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        title: What it is of.
        header: Names of the columns; the first is of the rows' names.
        rows: Entries, as many as there are columns.
        note: What a reader must know.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""

    def figures(self) -> Iterator[tuple[tuple[str, str, str], Figure]]:
        """Every number that has an interval, by table, row and column."""
        for row in self.rows:
            for column, entry in zip(self.header, row, strict=True):
                if isinstance(entry, Figure):
                    yield (self.title, str(row[0]), column), entry


def markdown(sheets: Sequence[Sheet]) -> str:
    """The tables in Markdown."""
    lines: list[str] = []
    for sheet in sheets:
        lines += [f"### {sheet.title}", "", f"| {' | '.join(sheet.header)} |", "|---" * len(sheet.header) + "|"]
        lines += [f"| {' | '.join(_plain(entry) for entry in row)} |" for row in sheet.rows]
        lines += ["", *([sheet.note, ""] if sheet.note else [])]
    return "\n".join(lines)


def latex(sheets: Sequence[Sheet]) -> str:
    """The tables in LaTeX, for the package booktabs."""
    lines = [r"% needs \usepackage{booktabs}"]
    for sheet in sheets:
        lines += [r"\begin{table}", r"\centering\small", rf"\caption{{{_escaped(f'{sheet.title}. {sheet.note}')}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(sheet.header) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(_escaped, sheet.header)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(_set, row)) + r" \\" for row in sheet.rows]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join(lines)


def outside(own: Sequence[Sheet], published: Sequence[Sheet]) -> tuple[list[str], int]:
    """Which numbers do not lie within the published intervals, and how many were compared."""
    known = {key: figure for sheet in published for key, figure in sheet.figures()}
    found, compared = [], 0
    for sheet in own:
        for key, figure in sheet.figures():
            if key in known and known[key].is_elsewhere_too:
                compared += 1
                if not known[key].holds(figure.value):
                    found.append(f"{', '.join(key)}: {figure.number}, published {_plain(known[key])}")
    return found, compared


def _plain(entry: Entry) -> str:
    return entry if isinstance(entry, str) else f"{entry.number} {entry.interval}{entry.remark}"


def _set(entry: Entry) -> str:
    if isinstance(entry, str):
        return _escaped(entry)
    return rf"{_escaped(entry.number)} {{\scriptsize {_escaped(entry.interval + entry.remark)}}}"


def _escaped(text: str) -> str:
    return "".join(ESCAPED.get(character, character) for character in text)
