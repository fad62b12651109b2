"""The PostgreSQL store: several coordinators on one database (decision D13 of the architecture)."""
