"""BuildKit's side of the API: what `docker build` and `docker compose` speak when buildx is there.

`POST /grpc` turns a connection into HTTP/2 on which the client calls the control service; `POST /session` into one on which we call the
client: it gives its files, secrets, agents and credentials, and takes results (moby/buildkit `api/services/control/control.proto`,
`frontend/gateway/pb/gateway.proto`, `session/`). The Dockerfile is read by our own builder, whatever frontend the client names.
"""
