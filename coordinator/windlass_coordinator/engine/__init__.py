"""The verbs: one synchronous function each, run inside a store transaction (decision D1)."""
