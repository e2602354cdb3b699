"""python -m benchmarks.gpu: the day with a GPU."""

import sys

from benchmarks.gpu.day import main

sys.exit(main())
