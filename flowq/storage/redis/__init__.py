# SPDX-License-Identifier: MIT
"""The Redis store: also for Valkey, one server for many machines."""
