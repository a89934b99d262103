"""Hypothesis draws the same examples on every run, so that a change is what turns a test red, never chance.

`make test-all` draws afresh, to find what these examples do not: `--hypothesis-profile=fresh`.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("fresh", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("repeatable")
