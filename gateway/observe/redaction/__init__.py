"""Redaction: finds secrets, in every encoding, in what is about to be printed, and takes them out."""
