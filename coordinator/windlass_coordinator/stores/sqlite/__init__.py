"""SQLite: one writer thread, group commit, prepared statements on the raw driver connection."""
