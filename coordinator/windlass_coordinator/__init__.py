"""The coordinator: holds the queues, hands out work, records what came of it."""
