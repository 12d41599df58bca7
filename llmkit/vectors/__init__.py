"""Vectors as numbers: kept in fewer bytes, compared by cosine in blocks, looked up in an approximate index. No frame and no network."""
