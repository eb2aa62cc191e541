"""`python -m megagrow.bucketing.command`: the tool, wherever the checkout is."""

import sys

from megagrow.bucketing.command.bucket import main

if __name__ == "__main__":
    sys.exit(main())
