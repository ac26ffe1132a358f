# SPDX-License-Identifier: MIT
"""Errors travel between processes and keep what they say."""

from __future__ import annotations

import inspect
import pickle

import pytest

from flowq import errors
from flowq.errors import Failure, GroupError, Retry, Skip, Skipped, TaskError, WorkerLost

FAILURE = Failure("t", "id", "n", "error", "builtins.KeyError", "KeyError(1)", bases=("x.Y",))
PLAIN = [
    kind
    for name in errors.__all__
    if inspect.isclass(kind := getattr(errors, name))
    and issubclass(kind, BaseException)
    and not issubclass(kind, TaskError)
]


@pytest.mark.parametrize("kind", PLAIN, ids=lambda k: k.__name__)
def test_an_error_comes_out_of_a_pickle_as_it_went_in(kind: type[BaseException]) -> None:
    again = pickle.loads(pickle.dumps(kind("why")))

    assert type(again) is kind
    assert str(again) == "why"


@pytest.mark.parametrize("kind", [TaskError, WorkerLost])
def test_the_error_of_a_task_keeps_its_failure(kind: type[TaskError]) -> None:
    again = pickle.loads(pickle.dumps(kind(FAILURE)))

    assert type(again) is kind
    assert again.failure == FAILURE
    assert str(again) == str(kind(FAILURE))


def test_the_error_of_a_group_keeps_each_failure() -> None:
    error = GroupError([Skipped("t", "id", None, "no"), FAILURE], 5)

    again = pickle.loads(pickle.dumps(error))

    assert (again.failures, again.total) == (error.failures, 5)
    assert again.failure == FAILURE
    assert str(again) == "2 of 5 have no value; the first: n: KeyError(1)"


def test_what_a_body_raises_keeps_its_own_words() -> None:
    assert Retry("later", delay=3).delay == 3
    assert Skip("no need").reason == "no need"
    assert pickle.loads(pickle.dumps(Skip("no need"))).reason == "no need"
    assert pickle.loads(pickle.dumps(Retry("later", delay=3))).delay == 3


def test_a_failure_is_false_and_knows_the_classes_of_its_error_by_name() -> None:
    assert not FAILURE
    assert FAILURE.is_a(KeyError)
    assert not FAILURE.is_a(ValueError)
