"""What the database holds, as the compiler sees it."""
