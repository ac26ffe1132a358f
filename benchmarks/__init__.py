# SPDX-License-Identifier: MIT
"""Benchmarks: ``make bench``, or ``python -m benchmarks [case ...]``.

Each figure is a ratio to a peer (Huey) or to a hand-written loop that is measured in the same
round, one right after the other, because machines drift; what is quoted is the median over rounds.
"""
