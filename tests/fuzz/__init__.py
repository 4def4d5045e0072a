"""Malformed handshakes and frames, made by Hypothesis, thrown at every connector: ``python -m tests.fuzz --help``."""
