# SPDX-License-Identifier: MIT
# A package, so that no other distribution's top-level `tests` can stand in its place.
