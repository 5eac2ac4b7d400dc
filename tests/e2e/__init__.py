"""What a person does, in real front ends in a real browser: run by ``make e2e``."""
