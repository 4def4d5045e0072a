"""The ways into the suite beside a call of `wsbridge.conformance.run`: pytest, and the command line."""
