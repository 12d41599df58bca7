"""One file, one wire format. A vendor that speaks a format that stands here already is a row in ``catalogue/providers.toml`` instead.

Each file ends in ``adapter()``, which is all that the session asks for. SDKs are imported inside ``connect``.
"""
