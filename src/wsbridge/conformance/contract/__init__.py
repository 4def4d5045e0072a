"""The numbered rules as data, and what a check is."""
