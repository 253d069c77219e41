"""The error tree."""

from __future__ import annotations

import inspect
import pickle

import pytest

from spark_dl import errors
from spark_dl.errors import (
    ConfigError,
    RankFailure,
    SchemaError,
    SparkDLError,
    TimeoutExpiredError,
    TrainingFailedError,
    did_you_mean,
)

CLASSES = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, SparkDLError)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_pickling(cls):
    error = cls("what, where, expected, what to change")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (made on the line itself)
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


@pytest.mark.parametrize("cls", CLASSES)
def test_only_what_may_help_is_retried(cls):
    assert (cls.exit_code == errors.EXIT_RETRY) is cls.retryable
    assert cls.exit_code in {1, 2, 75, 130}


@pytest.mark.parametrize("cls", CLASSES)
def test_public_errors_are_exported(cls):
    exported = cls.__name__ in errors.__all__
    assert exported or any(base.__name__ in errors.__all__ for base in cls.__bases__)


def test_hints_are_close_or_nothing():
    assert did_you_mean("epoch", ["epochs", "seed"]) == "; did you mean 'epochs'?"
    assert did_you_mean("zzz", ["epochs", "seed"]) == ""


def test_an_unknown_key_lists_the_known_ones():
    error = ConfigError.unknown_key("b", where="table", known=["z", "a"])
    assert str(error) == "table: unknown key 'b' (known keys: a, z)"


def test_a_missing_column_names_its_role_and_the_others():
    error = SchemaError.missing_column("pixel", ["pixels", "digit"], role="label")
    assert "label column 'pixel' is not in the table; did you mean 'pixels'?" in str(error)
    assert "(columns: pixels, digit)" in str(error)


def test_a_timeout_says_what_for_and_which_setting():
    error = TimeoutExpiredError.waiting_for("2 workers", 1.5, "cluster.start_timeout_s")
    assert "after 1.5 s waiting for 2 workers" in str(error)
    assert "cluster.start_timeout_s" in str(error)


def failure(rank, **facts):
    return RankFailure(
        rank=rank, host=f"h{rank}", **{"error": "ValueError", "message": "boom", **facts}
    )


def test_equal_failures_are_merged_and_the_cause_comes_first():
    error = TrainingFailedError.from_failures([failure(2), failure(0), failure(1, message="other")])
    lines = str(error).splitlines()
    assert lines[0] == "[rank 0, 2 on h0, h2] ValueError: boom"
    assert "[rank 1 on h1] ValueError: other" in lines
    assert [item.rank for item in error.failures] == [0, 1, 2]


def test_the_users_traceback_and_last_lines_are_in_the_message():
    error = TrainingFailedError.from_failures(
        [failure(1, traceback="Traceback …\n  model.py", log_tail=("a", "b"))]
    )
    assert "model.py" in str(error)
    assert str(error).endswith("last log lines of rank 1:\n  a\n  b")


def test_a_process_that_died_without_a_word_is_described_by_what_became_of_it():
    error = TrainingFailedError.from_failures([failure(0, error="signal SIGKILL", message="")])
    assert str(error) == "[rank 0 on h0] signal SIGKILL"


@pytest.mark.parametrize(("kinds", "retryable"), [([True, True], True), ([True, False], False)])
def test_a_training_is_retried_only_if_all_its_failures_are_retryable(kinds, retryable):
    failures = [failure(rank, retryable=kind) for rank, kind in enumerate(kinds)]
    error = TrainingFailedError.from_failures(failures)
    assert isinstance(error, TrainingFailedError)
    assert error.retryable is retryable
    assert error.exit_code == (75 if retryable else 2)


def test_failures_survive_pickling():
    error = TrainingFailedError.from_failures([failure(0)])
    assert pickle.loads(pickle.dumps(error)).failures == error.failures  # noqa: S301
