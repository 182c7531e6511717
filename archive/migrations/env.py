"""Runs the revisions on the connection that ``Registry.upgrade`` hands over, in its transaction."""

from alembic import context

from archive.models import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=True,  # on both databases: an upgrade is done as a whole or not at all
)
context.run_migrations()
