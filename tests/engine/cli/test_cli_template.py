"""`--format` templates. Expectations are what the docker command line (28) printed for the same template and value."""

from __future__ import annotations

import json

import pytest

from engine.cli.tables import documents, render
from engine.cli.template import Template
from engine.errors import InvalidInput

DOC = {
    "Id": "49e4706c63fd49e4",
    "Name": "/c1",
    "State": {"Status": "running", "Running": True, "ExitCode": 3, "Health": None},
    "Config": {"Cmd": ["sleep", "1000"], "Labels": {"a": "b", "com.x": "y"}, "Env": ["A=1", "PATH=/bin"], "Image": "busybox"},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8377"}], "81/udp": None}, "Networks": {"b": {"IPAddress": "2"}, "a": {"IPAddress": "1"}}},
    "Ratio": 1.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("{{.State.Status}}", "running"),
        ("{{json .Config.Labels}}", '{"a":"b","com.x":"y"}'),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8377"),
        ("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}} {{end}}", "a=1 b=2 "),
        ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{127.0.0.1 8377}] 81/udp:<nil>]"),
        ("{{.State}}", "{running true false false false false 0 3    <nil>}"),
        ("{{json .State}}", '{"Status":"running","Running":true,"ExitCode":3,"Health":null}'),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nPATH=/bin\n"),
        ('{{index .Config.Labels "com.x"}}|{{index .Config.Labels "none"}}|', "y||"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{with .State.Health}}{{.Status}}{{else}}no{{end}}", "no"),
        ("{{with .Nothing}}{{.}}{{else with .Name}}{{.}}{{end}}", "/c1"),
        ("{{if eq .State.ExitCode 1}}one{{else if eq .State.ExitCode 2 3}}more{{end}}", "more"),
        ('{{if and .State.Running (eq .State.Status "running")}}yes{{end}}', "yes"),
        ('{{join .Config.Cmd " "}}', "sleep 1000"),
        ('{{upper .Name}} {{lower "ABC"}} {{title "abc def"}}', "/C1 abc Abc Def"),
        ("{{len .Config.Env}} {{len .Config.Image}} {{len .Config.Labels}}", "2 7 2"),
        ('{{printf "%s has %d %v %q %5d|%-4s|%05.1f" .Name 2 true "x" 7 "ab" .Ratio}}', '/c1 has 2 true "x"     7|ab  |001.5'),
        ("{{.Config.Cmd}} {{.Config.Labels}}", "[sleep 1000] map[a:b com.x:y]"),
        ("{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}", "sleep,1000"),
        ("{{range .Missing}}x{{else}}empty{{end}}", "empty"),
        ("{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{break}}{{end}}", "PATH=/bin"),
        ('{{split "a:b:c" ":"}}', "[a b c]"),
        ("{{truncate .Id 12}} {{slice .Id 0 4}}", "49e4706c63fd 49e4"),
        ("{{- /* comment */ -}} x {{- \" y\" }}", "x y"),
        ("{{$x := .Name}}{{$x}}{{$x = \"z\"}}{{$x}}{{$.Name}}", "/c1z/c1"),
        ("{{.Config.Env | json}}", '["A=1","PATH=/bin"]'),
        ("{{ .Config.Cmd | join | printf \"%s\" }}", None),
        ('{{not .State.Running}} {{or .State.Health "nothing"}} {{ne 1 2}} {{lt 1 2}} {{ge "b" "a"}}', "false nothing true true true"),
        ("{{.Ratio}} {{.State.ExitCode}} {{true}} {{\"a}}b\"}} {{`raw`}}", "1.5 3 true a}}b raw"),
        ("{{json .State.Health}} {{.State.Health}}", "null <no value>"),
        ('{{html "<a&b>"}} {{urlquery "a b/c"}} {{print 1 2 "x"}}', "&lt;a&amp;b&gt; a+b%2Fc 1 2x"),
        (r"a\nb", r"a\nb"),
        ('{{"a\\tb"}}', "a\tb"),
        ("{{pad .Name 1 2}}|", " /c1  |"),
        ('{{range $p, $c := .NetworkSettings.Ports}}{{$p}}{{if $c}}->{{(index $c 0).HostPort}}{{end}} {{end}}', "80/tcp->8377 81/udp "),
    ],
)  # fmt: skip
def test_templates(template: str, printed: str | None) -> None:
    if printed is None:
        with pytest.raises(InvalidInput):
            Template(template).write(DOC)
        return
    assert Template(template).write(DOC) == printed


@pytest.mark.parametrize(
    "template",
    ["{{.Id", "{{nofunc .Id}}", "{{.Nope}}", "{{.State.Nope.More}}", "{{if .Id}}", "{{end}}", "{{else}}", "{{range}}{{end}}", "{{index .Config.Cmd 9}}",
     "{{json .Nope}}", "{{template \"x\"}}", "{{$y}}", "{{(.Id}}", "{{.Id \"x\"}}", "{{\"open}}", "{{join 5 \",\"}}", "{{printf}}", "{{len 5}}", "{{lt 1 \"a\"}}",
     "{{" + "(" * 5000 + "}}", "{{if 1}}" * 3000],
)  # fmt: skip
def test_what_is_no_template_is_said(template: str) -> None:
    with pytest.raises(InvalidInput, match="--format"):
        Template(template).write(DOC)


def test_null_fields_print_as_their_types() -> None:
    document = {"Entrypoint": None, "Labels": None, "Health": None}
    template = Template(
        "{{.Entrypoint}} {{.Labels}} {{json .Labels}} {{len .Entrypoint}} {{if .Labels}}x{{end}}{{.Health}}"
    )
    assert template.write(document) == "[] map[] null 0 <no value>"
    assert documents("json", [document]) == '[{"Entrypoint":null,"Labels":null,"Health":null}]'


def test_lists() -> None:
    rows = [{"ID": "1", "Names": "web", "Labels": "a=b,c=d", "RunningFor": "1 second ago"}]
    assert render(r"{{.ID}}\t{{.Names}}\n", rows) == "1\tweb\n"
    assert json.loads(render("json", rows)) == rows[0]
    assert render("json", rows).startswith('{"ID":"1","Labels"')
    assert render('{{.Label "c"}}|{{.Label "no"}}', rows) == "d|"
    table = render(r"table {{.ID}}\t{{upper .Names}}\t{{.RunningFor}}", rows, {"ID": "CONTAINER ID"})
    assert [line.split() for line in table.splitlines()] == [
        ["CONTAINER", "ID", "NAMES", "CREATED"],
        ["1", "WEB", "1", "second", "ago"],
    ]
    assert render(r"table {{.ID}}\t{{.CreatedAt}}", []).split() == ["ID", "CREATED", "AT"]
    assert render("{{.ID}}", []) == ""
