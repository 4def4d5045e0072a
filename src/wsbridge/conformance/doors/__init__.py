"""The ways into the suite: a call, pytest, the command line."""
