"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dfcompiler.ir import Op, Program, parse, verify
from dfcompiler.pipeline import Pipeline
from docs import operators

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def drop_double_negation() -> Any:
    scope: dict[str, Any] = {"__name__": "drop_double_negation"}
    import sys
    import types

    module = sys.modules["drop_double_negation"] = types.ModuleType("drop_double_negation")
    scope = module.__dict__
    exec(blocks("writing_a_pass.md", "python")[0], scope)
    return scope["DropDoubleNegation"]()


def negations(result: str) -> Program:
    return parse(
        "program p() {\n  input @x: f32[4]\n  output @y: f32[4]\n  state main {\n"
        f"    %0: f32[4] = neg @x\n    {result}\n  }}\n}}\n"
    )


def test_the_example_pass_fires(drop_double_negation: Any) -> None:
    program = negations("%1: f32[4] = neg %0\n    @y: f32[4] = exp %1")
    result = Pipeline((drop_double_negation,)).run(program)
    assert [op.kind for op in result.program.ops()] == ["exp"]
    assert result.records[0].changed


def test_the_example_pass_declines(drop_double_negation: Any) -> None:
    declined: list[tuple[Op, str]] = []
    program = negations("@y: f32[4] = neg %0")
    found = drop_double_negation.run(program, lambda op, reason: declined.append((op, reason)))
    assert found is program
    assert [reason for _, reason in declined] == ["its result is a container"]


def test_the_guide_is_short() -> None:
    assert len((ROOT / "docs" / "writing_a_pass.md").read_text().splitlines()) < 200


def test_the_example_program_is_valid() -> None:
    text = next(
        block
        for block in re.findall(r"^```\n(.*?)^```$", (ROOT / "docs/ir.md").read_text(), re.S | re.M)
        if block.startswith("program")
    )
    verify(parse(text))


def test_the_operator_table_is_up_to_date() -> None:
    text = operators.PAGE.read_text(encoding="utf-8")
    assert operators.page(text) == text, "run python -m docs.operators"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
