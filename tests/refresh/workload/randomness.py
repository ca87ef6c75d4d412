"""How random cases are drawn: each afresh.

By itself Hypothesis makes most examples of earlier ones, in which it repeats some part in the place of another, and
begins with small ones.  That finds much in a function of two numbers, but of a query of fifty draws it leaves the same
few operators again and again.
"""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

AVAILABLE_PROVIDERS["afresh"] = HypothesisProvider
# Hypothesis finds cases; what makes one small is ours (shrink.py), because it knows what a step is.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def afresh(examples: int | None = None) -> settings:
    """Settings of a test of random cases: the profile's, or so many examples."""
    every = settings()
    return settings(every, max_examples=examples or every.max_examples, phases=PHASES, backend="afresh")
