"""Frames in, frames out: the only floor that knows pandas."""
