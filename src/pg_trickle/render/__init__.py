"""Algebra to SQL: the one place where SQL is printed."""
