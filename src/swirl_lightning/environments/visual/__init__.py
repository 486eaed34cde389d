"""Worlds of images."""
