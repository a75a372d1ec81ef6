"""Tables as text: csv files, and Markdown between the markers of a page."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from lab import store
from lab.cli import InputError

import numpy as np


def to_csv(rows: Iterable[dict]) -> bytes:
    """Rows as csv; floats with nine digits, which is enough for every float32."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for k, cells in enumerate(rows):
        if k == 0:
            writer.writerow(cells)
        values = (f"{v:.9g}" if isinstance(v, float | np.floating) else v for v in cells.values())
        writer.writerow(values)
    return text.getvalue().encode()


def share(value: float) -> str:
    """.9986, as the field writes shares."""
    return f"{value:.4f}".removeprefix("0")


def row(cells) -> str:
    return "| " + " | ".join(cells) + " |\n"


def head(*cells: str, left: int = 1) -> str:
    """The heading of a table, the first `left` columns left-aligned, the others right."""
    return row(cells) + "|" + "---|" * left + "---:|" * (len(cells) - left) + "\n"


def write_pages(found: dict[str, str], pages: tuple[Path, ...]) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->` for each table."""
    marked = re.compile(r"(<!-- ([\w-]+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    names = {name for text in texts.values() for _, name, _ in marked.findall(text)}
    if missing := found.keys() - names:
        raise InputError(f"no page has markers for the table {', '.join(sorted(missing))}")
    for page, text in texts.items():
        new = marked.sub(lambda match: match[1] + found[match[2]] + match[3], text)
        store.write(page, new.encode())
        print(f"wrote the tables of {page}")
