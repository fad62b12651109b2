"""The HTTP side: one listener, one library."""
