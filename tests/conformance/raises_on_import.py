"""A connector's module that cannot be imported."""

raise RuntimeError("not today")
