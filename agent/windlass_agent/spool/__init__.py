"""What lies on the node's disk: slots, journals, output, intents. Files only; no process, no network."""
