"""Benchmarks of wsbridge: run from the root of the checkout, see README.md."""
