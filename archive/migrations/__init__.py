"""Alembic's revisions of the registry's tables, oldest first; each stands for itself and imports no model."""
