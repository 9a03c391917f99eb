"""Tuning: what is measured, what is remembered, and files that are no database."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dfcompiler
from dfcompiler import api
from dfcompiler.analysis.tiling import Product, Tile
from dfcompiler.codegen import tuning
from dfcompiler.codegen.tuning import Measurement, best, conditions_of, measure, tune
from dfcompiler.codegen.tuning_database import (
    FORMAT,
    Conditions,
    TuningDatabase,
    TuningWarning,
)
from dfcompiler.ir import parse
from dfcompiler.target import parse_target
from tests.programs import with_random_weights

PRODUCT = Product((8, 96), 64, 48)
TILE = Tile(6, 64, 48, 96)
HERE = Conditions("packed product f32", "x86-64-v4", "a processor", 2, "abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tuning.jsonl"


def test_entries_are_found_again(path: Path) -> None:
    TuningDatabase(path).add({PRODUCT: TILE}, HERE)
    found = TuningDatabase(path)
    assert found.find(PRODUCT, HERE) == TILE
    assert found.find(replace(PRODUCT, depth=64), HERE) is None
    assert found.find(replace(PRODUCT, rows=(8,)), HERE) is None


@pytest.mark.parametrize("name", ["kernel", "isa", "cpu", "threads", "version"])
def test_other_conditions_are_another_entry(path: Path, name: str) -> None:
    TuningDatabase(path).add({PRODUCT: TILE}, HERE)
    other = replace(HERE, **{name: 7 if name == "threads" else "other"})  # type: ignore[arg-type]
    assert TuningDatabase(path).find(PRODUCT, other) is None


def test_two_processes_keep_what_both_measured(path: Path) -> None:
    first, second = TuningDatabase(path), TuningDatabase(path)
    other = replace(PRODUCT, columns=128)
    first.add({PRODUCT: TILE}, HERE)
    second.add({other: TILE}, HERE)
    found = TuningDatabase(path)
    assert found.find(PRODUCT, HERE) == found.find(other, HERE) == TILE


def test_the_file_is_replaced_whole(path: Path) -> None:
    TuningDatabase(path).add({PRODUCT: TILE}, HERE)
    assert [p.name for p in path.parent.iterdir()] == ["tuning.jsonl"]
    head, row = map(json.loads, path.read_text().splitlines())
    assert head == FORMAT
    assert row["tile"] == [6, 64, 48, 96]


GOOD = json.dumps(FORMAT) + "\n"
ROW = {"rows": [8], "columns": 64, "depth": 48, "tile": [6, 64, 48, 96], **vars(HERE)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "damaged or half written"),
        (GOOD + json.dumps(ROW)[:40], "damaged or half written"),
        (GOOD + json.dumps({**ROW, "tile": [6, 64, 48]}), "damaged or half written"),
        (GOOD + json.dumps({**ROW, "tile": [6, 64, 7, 96]}), "damaged or half written"),
        (GOOD + json.dumps({"rows": [8]}), "damaged or half written"),
        (GOOD + "[1]", "damaged or half written"),
        ('{"some": "file"}', "is no tuning database"),
        (json.dumps({**FORMAT, "version": 99}), "has version 99; this compiler writes version 2"),
    ],
)
def test_what_is_no_database_is_ignored(path: Path, text: str, sentence: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.warns(TuningWarning, match=sentence) as caught:
        database = TuningDatabase(path)
    assert str(path) in str(caught[0].message)
    assert "ignored" in str(caught[0].message)
    assert database.entries == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        database.add({PRODUCT: TILE}, HERE)
        assert TuningDatabase(path).find(PRODUCT, HERE) == TILE


def test_bytes_that_are_no_text(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.warns(TuningWarning, match="cannot be read"):
        assert TuningDatabase(path).entries == {}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = TuningDatabase(tmp_path / "tuning.jsonl")
    database.path = tmp_path / "file" / "tuning.jsonl"
    with pytest.warns(TuningWarning, match="cannot be"):
        database.add({PRODUCT: TILE}, HERE)


def test_the_best_tile_serves_all_rows() -> None:
    tiles = [replace(TILE, kc=16 * n) for n in (1, 2, 3)]
    rows = [
        Measurement(tiles[0], (1.0, 9.0)),
        Measurement(tiles[1], (1.1, 5.0)),
        Measurement(tiles[2], (2.0, 4.9)),
    ]
    assert best(rows) == tiles[1]


def test_measured_once_then_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "RUN_S", 1e-5)
    monkeypatch.setattr(tuning, "WARM_UP_S", 1e-3)
    target = parse_target("cpu")
    first = tune([PRODUCT, PRODUCT], target, TuningDatabase(path))
    assert first[PRODUCT].kc % 16 == 0

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(tuning, "measure", never)
    assert tune([PRODUCT], target, TuningDatabase(path)) == first


def test_a_target_that_this_machine_cannot_run_is_not_measured(path: Path) -> None:
    target = replace(parse_target("cpu"), cpu_features=("no such feature",))
    assert tune([PRODUCT], target, TuningDatabase(path)) == {}
    assert not path.exists()


def test_a_tile_s_time_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "RUN_S", 1e-5)
    monkeypatch.setattr(tuning, "WARM_UP_S", 1e-3)
    tiles = [TILE, replace(TILE, kc=16, mc=12)]
    target = parse_target("cpu")
    tiles = [replace(t, mr=target.gemm_mr, nr=target.gemm_nr) for t in tiles]
    (rows,) = measure({PRODUCT: tiles}, target, rounds=1).values()
    assert [row.tile for row in rows] == tiles
    assert all(s > 0 for row in rows for s in row.seconds)


def test_compile_with_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tile in the database is the one that the artifact's program carries."""
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path / "cache"))
    program = with_random_weights(
        parse(
            """program p(S <= 40) {
  input @x: f32[S, 48]
  weight @w: f32[48, 64]
  output @y: f32[S, 64]
  state main {
    @y: f32[S, 64] = matmul @x, @w
  }
}"""
        ),
        {},
    )
    target = parse_target("cpu")
    tile = Tile(target.gemm_mr, target.gemm_nr, 16, 12)
    product = Product((3, 8), 64, 48)
    TuningDatabase().add({product: tile}, conditions_of(target))
    x = np.random.default_rng(0).standard_normal((33, 48)).astype(np.float32)
    with dfcompiler.compile(program, tmp_path / "tuned", tune=True) as model:
        found = model.run({"x": x})["y"]
    with dfcompiler.compile(program, tmp_path / "plain") as model:
        expected = model.run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    (text,) = (tmp_path / "tuned" / "ir").glob("*tune.ir")
    assert f"tile = [{target.gemm_mr}, {target.gemm_nr}, 16, 12]" in text.read_text()
    assert not list((tmp_path / "plain" / "ir").glob("*tune.ir"))
    assert api.Options(tune=True) != api.Options()
