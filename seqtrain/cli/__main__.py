"""`python -m seqtrain.cli` is the command `seqtrain`."""

import sys

from seqtrain.cli import main

sys.exit(main())
