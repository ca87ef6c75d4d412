"""The operators of the delta algebra, a module each: fields, law, delta (ALGEBRA.md)."""
