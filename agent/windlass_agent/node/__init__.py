"""What this machine is, and how busy."""
