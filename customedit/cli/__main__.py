"""``python -m customedit.cli``."""

from customedit.cli import main

main()
