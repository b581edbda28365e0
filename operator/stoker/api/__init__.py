"""The custom resource: its models, conditions, names and schema; only this package knows its shape."""
