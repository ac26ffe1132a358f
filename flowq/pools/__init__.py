# SPDX-License-Identifier: MIT
"""How workers execute: as threads of this process, or as processes of their own."""
