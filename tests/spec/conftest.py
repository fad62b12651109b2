"""Examples of specs are the same in every run, unless more of them are asked for (`make models`)."""

from hypothesis import settings

from tests.support.examples import FACTOR, examples

settings.register_profile("spec", parent=examples(100 if FACTOR > 1 else 50))
settings.load_profile("spec")
