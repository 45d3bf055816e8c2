"""Registries, as a client: the OCI distribution protocol's pull side, its authentication and its configuration."""
