"""The heart of a channel, which no connector's author and no application imports: see `wsbridge.connector`."""
