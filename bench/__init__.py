"""What pg_trickle costs and what it saves, measured: ``python -m bench``."""
