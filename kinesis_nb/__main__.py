"""``python -m kinesis_nb`` is the command line."""

import sys

from kinesis_nb.cli import main

sys.exit(main())
