"""A few command lines for the help of each verb."""

from __future__ import annotations

_EXAMPLES = {
    "attach": "workbench attach --detach-keys ctrl-x web",
    "build": "workbench build -t web .\nworkbench build --target test --build-arg VERSION=2 -f docker/Dockerfile .",
    "builder du": "workbench builder du",
    "builder prune": "workbench builder prune --filter until=24h --keep-storage 10g",
    "clone": "workbench clone ssh://me@server/web",
    "commit": "workbench commit -c 'CMD [\"serve\"]' web web:fixed",
    "context ls": "workbench context ls",
    "cp": "workbench cp web:/var/log/app.log .\nworkbench cp config.toml web:/etc/app/",
    "create": "workbench create --name web -p 8080:80 nginx",
    "diff": "workbench diff web",
    "events": "workbench events --since 10m --filter type=container",
    "exec": "workbench exec -it web sh\nworkbench exec -e DEBUG=1 -w /app web ./check",
    "export": "workbench export -o root.tar web",
    "history": "workbench history --no-trunc web:1",
    "images": "workbench images --filter 'reference=web:*'\nworkbench images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
    "import": "workbench import -c 'CMD [\"sh\"]' root.tar mine:1",
    "info": "workbench info --format json",
    "inspect": "workbench inspect -f '{{.State.Status}}' web\nworkbench inspect --type volume data",
    "kill": "workbench kill -s HUP web",
    "load": "workbench load -i images.tar",
    "login": "workbench login -u me --password-stdin registry.example.com < token",
    "logs": "workbench logs -f --tail 100 web\nworkbench logs --since 10m web",
    "buildx imagetools create": "workbench buildx imagetools create -t host:5000/web:1 host:5000/web:1-amd64 host:5000/web:1-arm64",
    "manifest create": "workbench manifest create host:5000/web:1 host:5000/web:1-amd64 host:5000/web:1-arm64",
    "manifest inspect": "workbench manifest inspect alpine:3.20",
    "network connect": "workbench network connect --alias db inner postgres",
    "network create": "workbench network create --subnet 10.5.0.0/16 inner",
    "network ls": "workbench network ls --filter driver=bridge",
    "pause": "workbench pause web",
    "port": "workbench port web 80/tcp",
    "ps": "workbench ps -a --filter status=exited\nworkbench ps --format 'table {{.Names}}\\t{{.Status}}'",
    "pull": "workbench pull --platform linux/arm64 alpine:3.20",
    "push": "workbench push registry.example.com/web:1",
    "rename": "workbench rename web web-old",
    "restart": "workbench restart -t 5 web",
    "rm": "workbench rm -f web\nworkbench rm -v web db",
    "rmi": "workbench rmi web:1",
    "run": "workbench run --rm -it alpine sh\nworkbench run -d --name web -p 8080:80 -v data:/data -e KEY=value nginx",
    "save": "workbench save -o images.tar web:1 db:2",
    "search": "workbench search registry.example.com/web --filter stars=3",
    "serve": "workbench serve --socket /run/workbench/api.sock",
    "start": "workbench start -ai web",
    "stats": "workbench stats --no-stream --format '{{.Name}} {{.MemUsage}}'",
    "stop": "workbench stop -t 5 web db",
    "system df": "workbench system df -v",
    "system prune": "workbench system prune --dry-run",
    "tag": "workbench tag web:1 registry.example.com/web:1",
    "top": "workbench top web -o pid,args",
    "unpause": "workbench unpause web",
    "update": "workbench update --memory 512m --cpus 1.5 web",
    "up": "workbench up --once\nworkbench up --sync files api",
    "volume create": "workbench volume create --label tier=db data",
    "volume ls": "workbench volume ls --filter dangling=true",
    "volume prune": "workbench volume prune --filter label=tier=test",
    "wait": "workbench wait web",
    "why": "workbench why src/app.py",
}


def text(usage: str) -> str:
    """The end of a verb's help; "" where the usage says it all. `usage` begins with the verb's words."""
    words = usage.split()
    found = next(filter(None, (_EXAMPLES.get(" ".join(words[:count])) for count in (3, 2, 1))), "")
    return "\n\nExamples:\n" + "\n".join(f"  {line}" for line in found.split("\n")) if found else ""
