"""Readers and writers, one file format a module; each converts conventions at its door."""
