# SPDX-License-Identifier: MIT
"""The store on a SQLite file; see `flowq.storage.sqlite.store`."""
