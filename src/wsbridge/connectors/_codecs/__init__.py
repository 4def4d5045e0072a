"""What two connectors share because their servers stand on the same library or protocol."""
