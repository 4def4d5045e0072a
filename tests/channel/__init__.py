"""The heart of a channel, without a server or an event loop."""
