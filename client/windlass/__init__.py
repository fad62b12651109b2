"""The Windlass SDK: submit jobs, watch them, read their output."""
