"""Code of ``docs/writing-a-connector.md`` that is in no example."""
