"""Settings for all tests: how hypothesis looks for examples, how many threads torch may take."""

import os

from hypothesis import settings

# No deadline: the first call of a model is slow and says nothing about the code under test.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))

# Share the cores among pytest's workers. Torch reads this when it is first imported, which is
# after this file, so that tests which need no torch do not wait for it.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))
