"""``python -m nstudent``."""

import os
import sys

# Python puts the working folder first on the path of modules, and a stranger's folder may hold a torch.py.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from nstudent.cli import main

main()
