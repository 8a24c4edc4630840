"""Configuration: schemas, checks and YAML files. No torch in here."""
