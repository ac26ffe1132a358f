# SPDX-License-Identifier: MIT
"""Which store a URL opens, and whose a store is."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowq import ConfigError, FlowQ
from flowq.storage import open_store, owner_of


@pytest.mark.parametrize(
    "url", ["redsi://user:secret@host/0", "postgres://secret@host", "shop.db", ""]
)
def test_a_url_of_no_known_form_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)

    assert "begins with none of sqlite://, memory://, redis://" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_says_whose_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/q.db"
    app = FlowQ("shop", url)
    app.task(name="t")(print)("x")
    app.store.close()

    assert owner_of(url) == "shop"


def test_what_is_no_file_of_flowq_has_no_owner(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"not a database at all" * 100)
    (tmp_path / "empty.db").touch()

    for name in ("absent", "other", "empty"):
        assert owner_of(f"sqlite:///{tmp_path}/{name}.db") is None, name
    assert not (tmp_path / "absent.db").exists()


def test_a_store_that_several_share_has_no_owner() -> None:
    assert owner_of("redis://nobody.invalid/0") is None
    assert owner_of("memory://") is None
