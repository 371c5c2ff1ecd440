"""HTTP for tests: httpx with a patient timeout, and without a proxy of the machine.

Where every core is busy with other tests, an answer may take longer than httpx's five seconds.
Nothing is asked over TLS: no client reads the certificates of the world's authorities, which takes
longer than a request.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import httpx

TIMEOUT: Final = 60.0

Client = partial(httpx.Client, timeout=TIMEOUT, trust_env=False, verify=False)
request = partial(httpx.request, timeout=TIMEOUT, trust_env=False, verify=False)
delete = partial(request, "DELETE")
get = partial(request, "GET")
head = partial(request, "HEAD")
options = partial(request, "OPTIONS")
post = partial(request, "POST")
put = partial(request, "PUT")
