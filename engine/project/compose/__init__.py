"""Compose files: from any number of YAML files to one document that knows where each of its values stands.

`positions` reads YAML, `variables` replaces `${…}`, `envfile` reads `.env` files, `merge` joins documents, `load` follows
include and extends, `validate` holds the result against the published schema, `services` turns it into what runs here.
"""
