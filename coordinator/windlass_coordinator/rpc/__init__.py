"""Servicers: convert, call the verb, convert back; and what stands around every call."""
