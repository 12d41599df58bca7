"""What llmkit costs beside what one would write by hand: ``python -m benchmarks``, or ``make bench``."""
