"""The same calls where a frame in memory is too small: files, part files, clusters."""
