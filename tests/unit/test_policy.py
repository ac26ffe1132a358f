# SPDX-License-Identifier: MIT
"""Options are checked where they are said; waits grow and stay within bounds."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.elsewhere import ELSEWHERE
from flowq.errors import ConfigError, GraphError
from flowq.policy import (
    OPTIONS,
    RetryPolicy,
    check_name,
    check_options,
    to_ms,
    wait_ms,
)


@given(
    st.floats(0, 1e6),
    st.floats(1, 1e3),
    st.none() | st.floats(0, 1e6),
    st.integers(1, 10**6),
    st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_longer_than_allowed_nor_shorter_than_half(
    delay: float, backoff: float, longest: float | None, failed: int, dice: float
) -> None:
    steady = RetryPolicy(retry_delay=delay, backoff=backoff, max_delay=longest)
    shaken = RetryPolicy(retry_delay=delay, backoff=backoff, max_delay=longest, jitter=True)

    full, part = wait_ms(steady, failed), wait_ms(shaken, failed, lambda: dice)

    assert 0 <= full <= (30 * 86_400_000 if longest is None else round(longest * 1000))
    assert full // 2 - 1 <= part <= full
    assert wait_ms(steady, failed + 1) >= full


def test_only_the_exceptions_named_are_tried_again() -> None:
    policy = RetryPolicy.of(check_options({"retry_on": (LookupError, OSError)}, "task", "t"))

    assert policy.wants(KeyError())
    assert policy.wants(ConnectionError())
    assert not policy.wants(ValueError())


@pytest.mark.parametrize(
    ("value", "ms"), [(1.5, 1_500), (0, 0), (timedelta(minutes=1), 60_000), (3, 3_000)]
)
def test_lengths_of_time_are_seconds_or_timedeltas(value: float | timedelta, ms: int) -> None:
    assert to_ms(value) == ms


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "3", timedelta(-1)])
def test_what_is_no_length_of_time_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"must be|negative"):
        to_ms(value)


@pytest.mark.parametrize("option", ["delay", "expires", "result_ttl", "retry_delay"])
@pytest.mark.parametrize("value", [1e14, 1e17, 10**400, timedelta.max])
def test_a_time_longer_than_a_century_is_refused_with_option_value_and_limit(
    option: str, value: float | timedelta
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options({option: value}, "task", "task t")

    said = str(caught.value)
    assert f"task t: {option}={value!r} must be at most 100 years" in said
    assert "not milliseconds" in said


@pytest.mark.parametrize("option", ["eta", "expires"])
@pytest.mark.parametrize("zone", [None, timezone.utc])
def test_all_of_the_past_is_a_moment_that_has_come(option: str, zone: timezone | None) -> None:
    for past in (datetime(1960, 1, 1, tzinfo=zone), datetime.min.replace(tzinfo=zone)):
        assert check_options({option: past}, "call", "t") == {option: 1}


@pytest.mark.parametrize("zone", [None, timezone.utc])
def test_a_moment_past_the_year_3000_is_refused(zone: timezone | None) -> None:
    with pytest.raises(GraphError, match=r"eta=.* must lie before the year 3000"):
        check_options({"eta": datetime.max.replace(tzinfo=zone)}, "call", "t")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**400, 2e6])
def test_a_backoff_without_end_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"backoff=.* at most 1000000"):
        check_options({"backoff": value}, "task", "t")


def test_a_wait_that_outgrows_a_float_is_the_longest_allowed() -> None:
    steep = RetryPolicy(retries=99, retry_delay=1, backoff=1e6)
    slow = RetryPolicy(retries=999, retry_delay=1, backoff=1.01, max_delay=100)

    assert wait_ms(steep, 60) == 30 * 86_400_000
    assert wait_ms(slow, 65) < wait_ms(slow, 300) < wait_ms(slow, 999) == 100_000


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"retrys": 1}, "did you mean 'retries'"),
        ({"retries": -1}, "between 0"),
        ({"retries": True}, "whole number"),
        ({"backoff": 0.5}, "at least 1"),
        ({"queue": "a b"}, "characters"),
        ({"retry_on": (int,)}, "exception class"),
        ({"jitter": 1}, "True or False"),
        ({"eta": 3}, "datetime"),
        ({"trigger_rule": "all_done"}, "does not go here"),
        ({"delay": 1, "eta": datetime.now(timezone.utc)}, "not both"),
    ],
)
def test_a_wrong_option_is_refused_in_words_that_help(given_: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_options(given_, "task", "task t")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("countdown", "write delay="),
        ("bind", "write context=True"),
        ("ignore_result", "write result_ttl=0"),
        ("autoretry_for", "write retry_on="),
        ("task_id", "write name="),
        ("on_failure_callback", "write on_error=alert.s()"),
        ("max_retries", "write retries="),
        ("default_retry_delay", "write retry_delay="),
        ("execution_timeout", "not supported yet"),
        ("depends_on", r"write a\.s\(\) \| b\.s\(\)"),
        ("failure_ttl", "write failed_ttl="),
        ("max_backoff", "write max_delay="),
        ("retry_delay_seconds", "write retry_delay="),
        ("schedule", "not supported yet"),
    ],
)
def test_an_option_of_another_library_is_answered_with_the_word_for_it(
    word: str, says: str
) -> None:
    with pytest.raises(GraphError, match=f"no option '{word}'; .*{says}"):
        check_options({word: 1}, "call", "task t")


@pytest.mark.parametrize("word", sorted(ELSEWHERE))
def test_every_word_of_another_library_is_answered_and_none_is_an_option(word: str) -> None:
    assert word not in OPTIONS

    with pytest.raises(ConfigError, match=f"no option '{word}'; ") as caught:
        check_options({word: 1}, "task", "task t")
    assert str(caught.value).endswith(ELSEWHERE[word])

    # what it says to write exists
    for option in re.findall(r"(\w+)=", ELSEWHERE[word]):
        assert option in OPTIONS, option


def test_what_airflow_users_type_is_taken() -> None:
    class TriggerRule(str, Enum):
        ALL_DONE = "all_done"

    assert check_options({"trigger_rule": TriggerRule.ALL_DONE}, "node", "t") == {
        "trigger_rule": "all_done"
    }
    assert check_options({"retry_delay": timedelta(minutes=5)}, "task", "t") == {
        "retry_delay": 300.0
    }


def test_a_mistyped_rule_is_named_once() -> None:
    with pytest.raises(GraphError, match="trigger_rule='al_done' is not known") as caught:
        check_options({"trigger_rule": "al_done"}, "node", "task t")

    assert str(caught.value).count("al_done") == 1


def test_the_error_is_that_of_the_place() -> None:
    with pytest.raises(GraphError, match="priority"):
        check_options({"priority": 5_000}, "call", "task t")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_default_passes_its_own_check(name: str) -> None:
    option = OPTIONS[name]

    if option.default is not None and name != "retry_on":
        assert option.check(option.default) == option.default


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 201])
def test_names_that_cannot_become_keys_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="queue"):
        check_name(name, "queue")
