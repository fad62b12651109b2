"""The node agent: pulls work from the coordinator, runs it under keepers, tells what came of it."""
