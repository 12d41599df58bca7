"""llmkit's notebook panels live here; each is a view of llmkit's public names and nothing deeper."""
