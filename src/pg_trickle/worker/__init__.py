"""The worker: refreshes on schedule, compiles for SQL callers.  A client like any other; its state is in tables."""
