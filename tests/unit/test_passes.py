"""Every case of ``tests/fixtures/passes/*.ir``: run the pass, compare text, execute both sides.

A file holds the cases of the pass it is named after::

    === title of a case
    # options limit = 16                 (options of the pass, Python literals)
    # data @w = [1.0, 2.0]               (a weight's values, broadcast; otherwise seeded random)
    # bindings S = 4                     (symbol values to execute at; otherwise 1s and small ones)
    program p(S) { … }
    --- after                            (followed by a program; names of %values do not matter)
    --- unchanged
    --- declined "part of the reason"    (alone: unchanged; or after one of the above)
    --- error "part of the sentence"
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.errors import DfcError
from dfcompiler.ir import Program, parse, show
from dfcompiler.pipeline import Pipeline, Step, assemble, default_probes, discover
from dfcompiler.target import parse_target
from tests.programs import assert_same_results, renumbered, with_random_weights

FIXTURES = Path(__file__).parent.parent / "fixtures" / "passes"
TARGETS = {"cpu": parse_target("cpu:x86-64-v4"), "cuda": parse_target("cuda:sm_90")}
_COMMENT = re.compile(r"# (options|data|bindings) (.*)")
_EXPECTATION = re.compile(r'(after|unchanged|declined|error)(?: "(.*)")?\Z')


@dataclass(frozen=True)
class Case:
    pass_name: str
    title: str
    options: dict[str, object]
    data: dict[str, object]
    bindings: dict[str, int]
    program: str
    expected: tuple[tuple[str, str], ...]

    def expectation(self, word: str) -> list[str]:
        return [text for found, text in self.expected if found == word]


def read_cases() -> list[Case]:
    return [
        case
        for path in sorted(FIXTURES.glob("*.ir"))
        for case in parse_cases(path.stem.replace("_", "-"), path.read_text(encoding="utf-8"))
    ]


def parse_cases(pass_name: str, text: str) -> list[Case]:
    head, *chunks = re.split(r"^=== ", text, flags=re.MULTILINE)
    stray = [line for line in head.splitlines() if line and not line.startswith("#")]
    assert not stray, f"text before the first case of {pass_name}: {stray[0]}"
    return [parse_case(pass_name, chunk) for chunk in chunks]


def parse_case(pass_name: str, chunk: str) -> Case:
    body, *parts = re.split(r"^--- ", chunk, flags=re.MULTILINE)
    title, _, body = body.partition("\n")
    found: dict[str, dict[str, object]] = {"options": {}, "data": {}, "bindings": {}}
    for word, rest in _COMMENT.findall(body):
        name, _, value = rest.partition(" = ")
        found[word][name.strip().removeprefix("@")] = ast.literal_eval(value.strip())
    expected = []
    for part in parts:
        line, _, rest = part.partition("\n")
        match = _EXPECTATION.match(line.strip())
        assert match, f"{pass_name}, {title}: no expectation: {line}"
        expected.append((match[1], rest if match[1] == "after" else match[2] or ""))
    assert expected, f"{pass_name}, {title}: no expectation"
    bindings = {name: int(str(value)) for name, value in found["bindings"].items()}
    return Case(
        pass_name, title.strip(), found["options"], found["data"], bindings, body, tuple(expected)
    )


def program_of(case: Case) -> Program:
    program = parse(case.program)
    given = {
        c.name: np.broadcast_to(np.asarray(case.data[c.name], c.type.dtype.numpy), c.type.shape)
        for c in program.weights
        if c.name in case.data
    }
    return with_random_weights(program, given)


def pipeline_of(case: Case) -> Pipeline:
    (kind, *_) = discover()[case.pass_name].runs_on
    return assemble([Step(case.pass_name, tuple(case.options.items()))], TARGETS[kind])


CASES = read_cases()


@pytest.mark.parametrize("case", CASES, ids=[f"{c.pass_name}: {c.title}" for c in CASES])
def test_fixture(case: Case) -> None:
    program, pipeline = program_of(case), pipeline_of(case)
    sentences = case.expectation("error")
    if sentences:
        with pytest.raises(DfcError) as caught:
            pipeline.run(program)
        assert sentences[0] in str(caught.value)
        return
    result = pipeline.run(program)
    (record,) = result.records
    reasons = [str(declined) for declined in record.declined]
    for part in case.expectation("declined"):
        assert any(part in reason for reason in reasons), f"{part!r} is not in {reasons}"
    after = case.expectation("after")
    expected = parse(after[0]) if after else program
    assert show(renumbered(result.program)) == show(renumbered(expected))
    assert record.changed == bool(after)
    again = pipeline.run(result.program)
    assert show(again.program) == show(result.program), "a second run changes the program again"
    ones = {symbol.name: 1 for symbol in program.symbols}
    probes = [case.bindings] if case.bindings else [ones, default_probes(program)[0]]
    for bindings in probes:
        assert_same_results(program, result.program, bindings)


def test_cases_of_one_pass_have_different_titles() -> None:
    titles = [(case.pass_name, case.title) for case in CASES]
    assert len(set(titles)) == len(titles)
