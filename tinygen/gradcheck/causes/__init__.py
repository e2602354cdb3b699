"""Why a gradient is wrong: the ways in which people get it wrong, one file for each kind, and `table` on top."""
