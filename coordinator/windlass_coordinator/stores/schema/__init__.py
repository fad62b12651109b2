"""Tables and their migrations; one numbered file in `versions/` per change, never edited once released."""
