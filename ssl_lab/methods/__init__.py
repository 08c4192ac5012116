"""Methods: one pretraining objective per file."""
