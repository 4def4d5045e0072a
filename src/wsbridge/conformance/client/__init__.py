"""The suite's own end of the wire, which shares no code with any server."""
