"""Removes secrets, in every encoding, from everything that is printed."""
