"""The base of connectors, without a server."""
