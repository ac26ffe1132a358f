# SPDX-License-Identifier: MIT
"""What users write: ways of writing one graph."""

from flowq.primitives.base import Composition
from flowq.primitives.branch import Branch, branch
from flowq.primitives.chain import Chain, chain
from flowq.primitives.dag import DAG, DagNode
from flowq.primitives.group import Group, chord, group
from flowq.primitives.map import Map, each, map_of
from flowq.primitives.optional import optional
from flowq.primitives.signature import Signature

__all__ = [
    "DAG",
    "Branch",
    "Chain",
    "Composition",
    "DagNode",
    "Group",
    "Map",
    "Signature",
    "branch",
    "chain",
    "chord",
    "each",
    "group",
    "map_of",
    "optional",
]
