"""Alembic wants this file; Windlass runs its migrations through `migrations.migrate` instead."""
