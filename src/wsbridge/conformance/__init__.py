"""The conformance suite: what every connector must do, checked over the wire."""
