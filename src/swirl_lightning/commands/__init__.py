"""Commands of ``swirl`` besides fit, validate, test and predict: one module each, with ``main(argv) -> int``."""
