"""Bytes to items: a module a format, and what all formats share."""
