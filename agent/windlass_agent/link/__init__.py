"""The agent's side of the conversation with the coordinator: one loop per file."""
