"""Alembic runs this to reach the store that is being opened; the transaction and its lock are the opener's."""

import logging

from alembic import context

logging.getLogger("alembic").setLevel(logging.WARNING)  # a run's log is about the run
context.configure(
    connection=context.config.attributes["connection"], version_table=context.config.attributes["version_table"]
)
context.run_migrations()
