"""Applications that the tests run as services."""
