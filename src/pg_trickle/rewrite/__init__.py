"""Algebra to algebra: small passes, each keeping the Z-set that a plan denotes."""
