# SPDX-License-Identifier: MIT
"""How workers execute: as threads of this process, or as processes of their own."""

loading = False
"""Whether this is a worker process that imports its app: what starts a consumer then is the app's
own module, whose workers would start further ones without end.
"""
