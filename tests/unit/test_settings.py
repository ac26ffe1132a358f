# SPDX-License-Identifier: MIT
"""Where a setting comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowq.errors import ConfigError
from flowq.settings import SETTINGS, load_settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        folder = tmp_path / "src" / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        return tmp_path

    return write


def test_a_flag_wins_over_the_environment_and_that_over_the_project(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("[tool.flowq]\nworkers = 2\nlease = 5\nshutdown_timeout = 7\n")
    monkeypatch.setenv("FLOWQ_WORKERS", "3")
    monkeypatch.setenv("FLOWQ_LEASE", "6")

    found = load_settings(
        {"workers": 4, "lease": None}, ["workers", "lease", "shutdown_timeout", "log-format"]
    )

    assert found == {"workers": 4, "lease": 6.0, "shutdown_timeout": 7.0, "log-format": "text"}


def test_the_environment_reads_as_a_shell_writes_it(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("")
    for name, value in (("QUEUE", "a, b"), ("DRAIN", "yes"), ("VERBOSITY", "-1"), ("URL", "")):
        monkeypatch.setenv(f"FLOWQ_{name}", value)

    found = load_settings({}, ["queue", "drain", "verbosity", "url"])

    assert found == {"queue": ("a", "b"), "drain": True, "verbosity": -1, "url": None}


def test_a_misspelt_key_is_an_error_with_a_suggestion(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("[tool.flowq]\nworker = 2\n")
    with pytest.raises(ConfigError, match=r"pyproject.toml: .*'worker'; did you mean 'workers'"):
        load_settings({}, ["url"])

    project("")
    monkeypatch.setenv("FLOWQ_WORKRES", "3")
    with pytest.raises(ConfigError, match=r"FLOWQ_WORKRES.*did you mean 'FLOWQ_WORKERS'"):
        load_settings({}, ["url"])

    with pytest.raises(ConfigError, match="did you mean 'lease'"):
        load_settings({"leese": 3}, ["url"])


def test_variables_that_are_not_ours_are_left_alone(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("")
    for name in ("FLOWQ_TEST_REDIS_URL", "FLOWQ_SERVICE_HOST", "FLOWQ_PORT", "FLOWQ_WHATEVER"):
        monkeypatch.setenv(name, "x")

    assert load_settings({}, ["lease"]) == {"lease": 30.0}


WRONG = {
    "workers": "none",
    "lease": "-1",
    "kind": "greenlet",
    "drain": "perhaps",
    "queue": 3,
    "verbosity": 7,
    "log-format": "xml",
    "app": "",
}


@pytest.mark.parametrize(("key", "value"), WRONG.items())
def test_a_wrong_value_is_an_error_that_names_the_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"--{key}: .*must be"):
        load_settings({key: value}, [key])


def test_a_file_that_is_no_toml_is_named(project: Any) -> None:
    folder = project("[tool.flowq\n")

    with pytest.raises(ConfigError) as told:
        load_settings({}, ["url"])

    assert str(folder / "pyproject.toml") in str(told.value)


def test_a_path_in_a_file_is_meant_from_that_file(project: Any) -> None:
    folder = project('[tool.flowq]\nurl = "sqlite:///data/q.db?synchronous=normal"\n')

    url = load_settings({}, ["url"])["url"]

    assert url == f"sqlite:///{folder}/data/q.db?synchronous=normal"


def test_every_setting_has_words_and_a_default_that_passes() -> None:
    for key, setting in SETTINGS.items():
        assert setting.doc.endswith(".")
        if setting.default is not None:
            assert setting.check(setting.default) == setting.default, key
