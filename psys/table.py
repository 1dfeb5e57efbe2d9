"""Tables of plain text: the same on a terminal, in a log and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with their cells under each other; numbers need not be told apart."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
