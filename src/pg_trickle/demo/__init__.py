"""``pgtrickle demo``: stream tables that follow a year of New York's flights, live, and the proof that they do."""
