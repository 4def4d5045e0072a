"""What stands below everything else, and imports nothing of it."""
