"""python -m benchmarks.models: the table of likelihoods."""

import sys

from benchmarks.models.likelihoods import main

sys.exit(main())
