# SPDX-License-Identifier: MIT
"""What users write: ways of writing one graph."""

from flowq.primitives.base import Composition
from flowq.primitives.branch import Branch, branch
from flowq.primitives.chain import Chain, chain
from flowq.primitives.dag import DAG, DagNode
from flowq.primitives.first import First, first
from flowq.primitives.group import Group, chord, group
from flowq.primitives.map import Map, each, map_of
from flowq.primitives.optional import optional
from flowq.primitives.signature import Signature
from flowq.primitives.sleep import Sleep, sleep
from flowq.primitives.wait import WaitFor, wait_for

__all__ = [
    "DAG",
    "Branch",
    "Chain",
    "Composition",
    "DagNode",
    "First",
    "Group",
    "Map",
    "Signature",
    "Sleep",
    "WaitFor",
    "branch",
    "chain",
    "chord",
    "each",
    "first",
    "group",
    "map_of",
    "optional",
    "sleep",
    "wait_for",
]
