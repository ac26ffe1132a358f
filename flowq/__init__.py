"""A task queue that runs whole pipelines."""

__version__ = "0.1.0"
