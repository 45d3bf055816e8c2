"""The Docker Engine API over one engine: what the docker command line, docker-py and Compose speak.

`http` moves bytes, `router` finds the handler, the modules named after the API's nouns answer, `wire` translates documents.
Handlers see `engine.api.Engine` alone, so the same server can stand before any engine.
"""
