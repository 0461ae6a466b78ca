"""Every golden array is reproduced by a test or left out with a reason, and what a run says of it is true."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from oracles import golden
from oracles.golden import ARRAYS, EXCLUDED, SHARES, TESTS, Golden, matching, names_in

SOME = "core/nn/test_golden_norms.py"


def test_every_array_belongs_to_one_test_or_is_left_out() -> None:
    stray = []
    for file, count in ARRAYS.items():
        names = names_in(file)
        assert len(names) == count
        for name in names:
            owners = [share.test for share in SHARES if share.file == file and matching(name, share.names)]
            excluded = [pattern for pattern in EXCLUDED if matching(name, [pattern])]
            # An exclusion is an exception to a share.
            if len(excluded) > 1 or (len(owners) != 1 if not excluded else len(owners) > 1):
                stray.append(f"{file}: {name}: {owners or 'no test'}, {excluded or 'not excluded'}")
    assert stray == []


def test_every_pattern_takes_something_in_and_every_exclusion_says_why() -> None:
    everything = [name for file in ARRAYS for name in names_in(file)]
    for share in SHARES:
        for pattern in (*share.names, *share.data):
            assert any(matching(name, [pattern]) for name in names_in(share.file)), f"{share.test}: {pattern}"
    for pattern, reason in EXCLUDED.items():
        assert any(matching(name, [pattern]) for name in everything), pattern
        assert len(reason.split()) >= 5, f"{pattern}: say why in a sentence"


def test_every_test_that_answers_for_arrays_settles_its_account() -> None:
    for test in {share.test for share in SHARES}:
        assert ".settle(record_property)" in (TESTS / test).read_text(encoding="utf-8"), test


def test_an_array_that_was_forgotten_or_is_wrong_fails() -> None:
    account = Golden(str(TESTS / "core/amp/test_scaler.py"))
    with pytest.raises(AssertionError, match="not reproduced"):
        account.settle(lambda *_: None)
    with pytest.raises(AssertionError, match="found_inf"):
        account.same("scaler.found_inf", account["scaler.found_inf"] + 1)
    for name in ("scaler.scale_after(2,2,.5,3,limits 1..1024)", "scaler_hypergrad_bias.u(S g)/S"):
        account.same(name, account[name])
    with pytest.raises(AssertionError, match="not fed in"):
        account.settle(lambda *_: None)
    assert account["scaler_hypergrad_bias.S"].size
    noted: list[object] = []
    account.settle(lambda *said: noted.append(said))
    assert noted == [(golden.PROPERTY, '{"file": "golden_spec_only.npz", "results": 2, "data": 2}')]


def test_a_run_ends_with_the_counts_and_the_reasons() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", SOME, "core/amp/test_scaler.py"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(
        r"golden_spec_only.npz: 62 arrays: (\d+) reproduced, (\d+) fed in, (\d+) excluded, (\d+)", done.stdout
    )
    assert said is not None, done.stdout
    assert [int(number) for number in said.groups()] == [7, 2, 8, 45]
    assert "8 excluded, ig.*: integrated gradients" in done.stdout
    assert re.search(r"golden_spiraltorch.npz: 543 arrays: 177 reproduced, 10 fed in, 8 excluded", done.stdout)
