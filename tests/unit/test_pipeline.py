"""The pipeline: what it checks, records and reports, and how it is put together."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from dfcompiler.errors import ClaimError, DfcError, InternalError, UsageError, VerifyError
from dfcompiler.ir import Op, Program, State, parse, show
from dfcompiler.ir.rewrite import Builder, map_states
from dfcompiler.pipeline import (
    Claim,
    Decline,
    Pass,
    Pipeline,
    Step,
    assemble,
    default_probes,
    discover,
    extended,
    read_steps,
)
from dfcompiler.target import parse_target
from passes.canonicalize import RULES
from passes.pipelines import DEFAULT, named
from passes.rules.sweep import Sweep
from tests.programs import with_random_weights

ROOT = Path(__file__).parents[2]

PROGRAM = parse(
    """program p(S, T <= 5) {
  input @x: f32[S, 4]
  input @z: f32[T]
  output @y: f32[S, 4]
  state main {
    %0: f32[S, 4] = exp @x from "layer/Exp"
    @y: f32[S, 4] = neg %0
  }
}"""
)


@dataclass(frozen=True)
class Same(Pass):
    """Builds an equal program anew."""

    name: ClassVar[str] = "same"

    def run(self, program: Program, decline: Decline) -> Program:
        return replace(program)


@dataclass(frozen=True)
class Double(Pass):
    """Negates three times, whatever it claims."""

    name: ClassVar[str] = "double"
    claims: ClassVar[tuple[str, ...]] = ("ops ==", "flops <=")

    def run(self, program: Program, decline: Decline) -> Program:
        def grown(state: State) -> State:
            first, last = state.ops
            more = replace(first, result="%9", inputs=("%0",))
            return replace(state, ops=(first, more, replace(last, inputs=("%9",))))

        return map_states(program, grown)


@dataclass(frozen=True)
class Break(Pass):
    """Reads a value that does not exist."""

    name: ClassVar[str] = "break"

    def run(self, program: Program, decline: Decline) -> Program:
        return map_states(program, lambda s: replace(s, ops=s.ops[1:]))


@dataclass(frozen=True)
class Crash(Pass):
    """Has a bug."""

    name: ClassVar[str] = "crash"

    def run(self, program: Program, decline: Decline) -> Program:
        raise KeyError("oops")


@dataclass(frozen=True)
class Refuse(Pass):
    """Looks at every operator and declines."""

    limit: int = 3
    target: object = None

    name: ClassVar[str] = "refuse"

    def run(self, program: Program, decline: Decline) -> Program:
        for op in program.ops():
            decline(op, "not today")
        return program


FOUND: dict[str, type[Pass]] = {p.name: p for p in (Same, Double, Break, Crash, Refuse)}


# ------------------------------------------------------------------------------------------ running


def test_change_is_computed_and_declined_sites_are_kept() -> None:
    result = Pipeline((Same(), Refuse())).run(PROGRAM)
    same, refuse = result.records
    assert not same.changed
    assert not refuse.changed
    assert [str(d) for d in refuse.declined] == [
        "exp %0 from layer/Exp: not today",
        "neg @y: not today",
    ]
    assert [snapshot.file_name for snapshot in result.snapshots] == ["00-import.ir"]


def test_metrics_are_taken_before_and_after_at_every_probe() -> None:
    probes = ({"S": 2, "T": 1}, {"S": 10, "T": 5})
    (record,) = Pipeline((replace_claims(Double),)).run(PROGRAM, probes).records
    assert record.changed
    assert [m.flops for m in record.before] == [16, 80]
    assert [m.flops for m in record.after] == [24, 120]
    assert [m.ops for m in record.after] == [3, 3]


def replace_claims(kind: type[Pass], *claims: str) -> Pass:
    """An instance of a pass that claims something else."""
    return type(kind.__name__, (kind,), {"claims": claims})()  # type: ignore[no-any-return]


def test_a_broken_claim_names_pass_metric_and_values() -> None:
    with pytest.raises(ClaimError) as caught:
        Pipeline((Same(), Double())).run(PROGRAM, ({"S": 2, "T": 1},))
    text = str(caught.value)
    assert "double claims ops == but ops went from 2 to 3" in text
    assert "after pass double (2 of 2)" in text


def test_an_invalid_program_is_reported_with_the_pass_that_made_it() -> None:
    with pytest.raises(VerifyError) as caught:
        Pipeline((Same(), Break())).run(PROGRAM)
    assert "%0 is read but not defined" in str(caught.value)
    assert caught.value.where[-1] == "after pass break (2 of 2)"


def test_a_bug_in_a_pass_is_an_internal_error() -> None:
    with pytest.raises(InternalError) as caught:
        Pipeline((Crash(),)).run(PROGRAM)
    assert "KeyError: 'oops'" in str(caught.value)
    assert caught.value.where == ("in pass crash (1 of 1)",)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_program_is_verified_before_the_first_pass() -> None:
    broken = map_states(PROGRAM, lambda s: replace(s, ops=s.ops[1:]))
    with pytest.raises(VerifyError):
        Pipeline(()).run(broken)


def test_probes_respect_maxima() -> None:
    small, large = default_probes(PROGRAM)
    assert small != large
    assert all(probe["T"] <= 5 for probe in (small, large))
    assert default_probes(Program("p")) == ({},)


# ------------------------------------------------------------------------------------------- claims


def test_claims() -> None:
    assert Claim.parse("moved_bytes <=") == Claim("moved_bytes", "<=")
    assert str(Claim.parse("flops ==")) == "flops =="
    for text in ("speed <=", "flops", "flops >=", "flops  ==", ""):
        with pytest.raises(ValueError, match="is no claim"):
            Claim.parse(text)


def test_every_claim_of_every_pass_parses() -> None:
    for kind in discover().values():
        assert all(map(Claim.parse, kind.claims)), kind.name


# --------------------------------------------------------------------------------------- assembling


def test_options_and_targets_are_filled_in() -> None:
    target = parse_target("cpu:x86-64-v3")
    (one,) = assemble([Step("refuse", (("limit", 7),))], target, found=FOUND).passes
    assert one == Refuse(7, target)


@pytest.mark.parametrize(
    ("step", "sentence", "hint"),
    [
        ("fuze", "there is no pass fuze", "break, crash, double, refuse, same"),
        (Step("refuse", (("limt", 1),)), "refuse has no option limt", "its options are: limit"),
        (Step("same", (("limit", 1),)), "same has no option limit", "its options are: none"),
    ],
)
def test_unknown_passes_and_options_list_what_exists(
    step: Step | str, sentence: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        assemble([step], found=FOUND)
    assert sentence in caught.value.message
    assert hint in caught.value.hint


def added(pass_name: str, follows: str) -> type[Pass]:
    return type(pass_name.title(), (Same,), {"name": pass_name, "after": follows})


def test_passes_of_other_packages_follow_the_pass_they_name() -> None:
    found = FOUND | {n: added(n, a) for n, a in (("b", "same"), ("a", "same"), ("c", "a"))}
    assert extended(("same", "double", "same"), found) == ("same", "double", "same", "a", "c", "b")
    assert extended(("c", "a", "b"), found) == ("c", "a", "b")


def test_a_pass_that_follows_nothing_known() -> None:
    with pytest.raises(UsageError, match="the pass b follows missing") as caught:
        extended(("same",), FOUND | {"b": added("b", "missing")})
    assert "the pipeline is: same" in caught.value.hint


def test_steps_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('passes = ["canonicalize", {name = "fuse-elementwise", limit = 8}]')
    steps = read_steps(path)
    assert steps == (Step("canonicalize"), Step("fuse-elementwise", (("limit", 8),)))
    assert [one.name for one in assemble(steps).passes] == ["canonicalize", "fuse-elementwise"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "is not text"),
        (b"passes = [", "is not TOML"),
        (b"other = 1", "has no list of passes"),
        (b"passes = []", "has no list of passes"),
        (b"passes = [3]", "neither a pass name nor a table"),
        (b"passes = [{limit = 3}]", "neither a pass name nor a table"),
    ],
)
def test_files_that_list_no_passes(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_steps(path)
    assert sentence in caught.value.message


def test_named_pipelines() -> None:
    for target in (parse_target("cpu:x86-64-v4"), parse_target("cuda:sm_90")):
        names = [one.name for one in named("default", target).passes]
        kinds = discover()
        expected = [name for name in DEFAULT if target.kind in kinds[name].runs_on]
        assert [name for name in names if name in DEFAULT] == expected
    with pytest.raises(UsageError, match="there is no pipeline quick"):
        named("quick")


# ------------------------------------------------------------------------------------------- naming


def pass_files() -> list[Path]:
    return [
        path
        for path in sorted((ROOT / "passes").glob("*.py"))
        if re.search(r"^class \w+\(Pass\)", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]


@pytest.mark.parametrize("path", pass_files(), ids=lambda path: path.stem)
def test_file_class_name_and_cases_have_one_spelling(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (kind,) = (
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b) == "Pass" for b in node.bases)
    )
    name = path.stem.replace("_", "-")
    assert kind.name == path.stem.title().replace("_", "")
    assert discover()[name].__name__ == kind.name
    assert (ast.get_docstring(kind) or "").strip(), "a pass shows its rewrite"
    cases = ROOT / "tests" / "fixtures" / "passes" / f"{path.stem}.ir"
    if name not in DEFAULT and not cases.exists():
        # Both sides of a case are executed; a pass that changes what a program gives has tests.
        assert (ROOT / "tests" / "unit" / f"test_{path.stem}.py").exists()
        return
    text = cases.read_text(encoding="utf-8")
    assert "--- after" in text, "a pass has a case in which it fires"
    assert "--- unchanged" in text or "--- declined" in text, "and one in which it does not"


def test_every_cases_file_belongs_to_a_pass() -> None:
    names = {path.stem for path in pass_files()}
    cases = {path.stem for path in (ROOT / "tests" / "fixtures" / "passes").glob("*.ir")}
    assert cases <= names


# ----------------------------------------------------------------------------------- linear effort


def layers(count: int) -> Program:
    """A model of many equal layers, with what every rule and pass looks for."""
    lines = ["%in: f32[S, 8] = copy @x"]
    value = "%in"
    for i in range(count):
        lines += [
            f"%w{i}: f32[8, 8] = transpose @w {{perm = [1, 0]}}",
            f"%m{i}: f32[S, 8] = matmul {value}, %w{i}",
            f"%b{i}: f32[S, 8] = expand @b",
            f"%a{i}: f32[S, 8] = add %b{i}, %m{i}",
            f"%g{i}: f32[S, 8] = tanh %a{i}",
            f"%r{i}: f32[2*S, 4] = reshape %g{i}",
            f"%n{i}: f32[2*S, 4] = neg %r{i}",
            f"%s{i}: f32[S, 8] = reshape %n{i}",
            f"%l{i}: f32[S, 8] = add %s{i}, {value}",
        ]
        value = f"%l{i}"
    body = "\n".join(f"    {line}" for line in [*lines, f"@y: f32[S, 8] = exp {value}"])
    text = f"""program deep(S) {{
  input @x: f32[S, 8]
  weight @w: f32[8, 8]
  weight @b: f32[8]
  output @y: f32[S, 8]
  state main {{
{body}
  }}
}}"""
    return with_random_weights(parse(text))


def steps_of(program: Program, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many operators the passes build, rename or look up while the default pipeline runs."""
    count = 0

    def counted(function: object) -> object:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            return function(*arguments, **options)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Op, "renamed", counted(Op.renamed))
        patch.setattr(Op, "attr", counted(Op.attr))
        patch.setattr(Sweep, "_step", counted(Sweep._step))
        patch.setattr(Sweep, "producer", counted(Sweep.producer))
        named("default", parse_target("cpu:x86-64-v4")).run(program, ({"S": 3},))
    return count


def test_effort_grows_linearly_with_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (steps_of(layers(count), monkeypatch) for count in (10, 80))
    assert long <= 8.5 * short


def test_a_deep_program_is_canonical_after_one_run() -> None:
    program = layers(12)
    (state,) = program.states()
    once = Sweep(program, state, RULES).run()
    again = Sweep(program, once, RULES).run()
    assert again.ops == once.ops
    assert "reshape" not in {op.kind for op in once.ops if op.kind == "neg"}


def test_errors_are_one_sentence_with_place_and_hint() -> None:
    error = DfcError("found a, expected b", ("state main",), "do c")
    assert str(error) == "error[internal]: found a, expected b\n  state main\n  hint: do c"


def test_builders_and_snapshots_show_the_program_after_each_change() -> None:
    build = Builder({f"@{c.name}": c.type for c in PROGRAM.containers})
    value = build.op("neg", (build.op("neg", ("@x",)),))
    build.op("copy", (value,), result="@y")
    program = replace(PROGRAM, body=(State("main", tuple(build.ops)),))
    result = assemble(["canonicalize", "eliminate-dead-code"]).run(program)
    assert [s.file_name for s in result.snapshots] == ["00-import.ir", "01-canonicalize.ir"]
    assert "copy @x" in show(result.snapshots[-1].program)
