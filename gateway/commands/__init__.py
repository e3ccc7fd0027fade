"""The commands, one module for what is used together. Each imports the packages below only when it runs."""
