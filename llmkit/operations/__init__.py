"""One file, one thing a row may ask. The files do not know one another, nor any vendor's words for what they ask."""
