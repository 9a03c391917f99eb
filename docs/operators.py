"""Writes the operator table into docs/ir.md: ``python -m docs.operators``."""

from __future__ import annotations

from pathlib import Path

from dfcompiler.ir import OPERATORS

PAGE = Path(__file__).with_name("ir.md")
START, END = "<!-- operators: written by python -m docs.operators -->\n", "<!-- end -->\n"


def table() -> str:
    """The operator table as Markdown, by class."""
    lines = [
        "| operator | class | inputs | attributes | what it computes |",
        "|---|---|---|---|---|",
    ]
    rows = sorted(OPERATORS.values(), key=lambda row: (row.op_class.value, row.kind))
    for row in rows:
        low, high = row.arity
        inputs = str(low) if low == high else f"{low}–{high}" if high >= 0 else f"{low}…"
        attributes = [f"`{name}`" for name in row.attrs]
        attributes += [f"`{name} = {value!r}`" for name, value in (row.optional or {}).items()]
        doc = row.doc.replace("|", "\\|")
        lines.append(
            f"| `{row.kind}` | {row.op_class.value} | {inputs} | {', '.join(attributes)} | {doc} |"
        )
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with the table of today between its marks."""
    head, _, rest = text.partition(START)
    return head + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
