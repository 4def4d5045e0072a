"""What two connectors share because their servers stand on the same library, and what stands before a server's own."""
