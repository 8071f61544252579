"""What all tests share: property-based tests that draw the same examples in every run."""

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=15, database=None)
settings.load_profile("reproducible")
