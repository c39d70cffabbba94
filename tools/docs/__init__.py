"""The documentation: generates what can be generated, and reads the rest for its tests."""
