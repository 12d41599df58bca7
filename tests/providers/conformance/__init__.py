"""The same questions to every provider: what docs/providers.md says of one is carried out, over real sockets, through the public front.

Providers come from the catalogue and what they do from the page's script, so a new row or a new adapter is asked by itself. What differs
by vendor and is no column of the page stands in `expectations`, with the reason.
"""
