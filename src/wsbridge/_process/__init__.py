"""What belongs to a process that serves: its signals, its event loop, its descriptors."""
