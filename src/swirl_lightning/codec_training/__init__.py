"""Training of image codecs."""
