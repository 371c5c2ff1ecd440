"""``python -m api`` serves the front end."""

import sys

from api.main import main

sys.exit(main())
