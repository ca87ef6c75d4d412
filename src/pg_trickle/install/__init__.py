"""The SQL part of pg_trickle, and how it gets into a database."""
