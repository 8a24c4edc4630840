"""The configuration: its schema, checks and YAML files. No torch in here."""
