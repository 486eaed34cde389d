"""Worlds: recorders of real simulators and readers of released data sets."""
