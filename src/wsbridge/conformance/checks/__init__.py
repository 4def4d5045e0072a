"""The checks, by groups of rules. Importing this registers them all."""

from wsbridge.conformance.checks import recv

__all__ = ["recv"]
