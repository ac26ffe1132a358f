# SPDX-License-Identifier: MIT
"""A store in plain dicts: the oracle by which real stores are measured.

It keeps the whole contract of `flowq.storage.base`, and asks `flowq.states` for every verdict. It
is slow on purpose: what is ready, due, late or held is found by looking at everything, so there is
no second copy of the truth that could be wrong.
"""

from flowq.testing.model.store import ModelStore

__all__ = ["ModelStore"]
