"""``python -m nstudent``."""

from nstudent.cli import main

main()
