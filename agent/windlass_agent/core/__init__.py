"""Decides; no clock, no I/O, no event loop (architecture.md, section 4)."""
