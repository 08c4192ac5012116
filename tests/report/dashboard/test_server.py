import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
from cli.made_runs import OBJECTIVE, make_run
from report.dashboard.many_runs import HOSTILE
from report.fake_runs import write_picture, write_run

import ssl_lab.report.dashboard.site as site
from ssl_lab.cli.completion import completions
from ssl_lab.cli.main import main
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.dashboard.server import Dashboard


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def served(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    (run / "report.html").write_text("<script>alert(1)</script>")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_text("weights")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secrets").mkdir()
    write_picture(tmp_path / "secrets" / "step_00000007.png")
    (run / "pictures" / "linked").symlink_to(tmp_path / "secrets")
    with Dashboard(RunIndex([tmp_path / "runs"]), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, method="GET", **headers):
    """Status, headers and content of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_the_page_its_data_and_the_files_of_runs(served):
    status, headers, content = ask(served, "/")
    assert status == 200 and b'data-mode="served"' in content and b"://" not in content
    assert "script-src 'self';" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    id = json.loads(ask(served, "/data/index.json")[2])["runs"][0]["id"]
    details = json.loads(ask(served, f"/data/run/{id}.json")[2])
    assert details["report"] and details["curves"]["train/loss"]["value"]
    assert ask(served, f"/runs/{id}/pictures/views/step_00000600.png")[2].startswith(b"\x89PNG")
    status, headers, _ = ask(served, f"/runs/{id}/report.html")
    assert status == 200 and headers["Content-Security-Policy"].startswith("sandbox;")  # its scripts do not run
    status, headers, content = ask(served, "/assets/plotly.min.js", method="HEAD")
    assert status == 200 and int(headers["Content-Length"]) > 1e6 and not content
    found = json.loads(ask(served, f"/data/importance/all.json?metric={OBJECTIVE}")[2])
    assert found[OBJECTIVE]["settings"] == []


def test_what_has_not_changed_is_not_sent_again(served):
    for path in ("/", "/data/index.json", "/assets/style.css"):
        _, first, _ = ask(served, path)
        status, again, content = ask(served, path, If_None_Match=first["ETag"])
        assert status == 304 and not content
        assert again["Content-Security-Policy"] == first["Content-Security-Policy"]


def test_nothing_but_the_files_of_runs_is_served(served):
    id = served.index.entries[0].id
    for path in (
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/data/../secret.txt",
        "/data/run/..%2f..%2fsecret.json",
        "/data/run/none.json",
        "/data/importance/all.json",
        "/data/importance/none.json?metric=x",
        "/runs/none/report.html",
        f"/runs/{id}/",
        f"/runs/{id}/summary.json",
        f"/runs/{id}/checkpoints/last.ckpt",
        f"/runs/{id}/../../secret.txt",
        f"/runs/{id}/pictures/views/..%2f..%2f..%2f..%2fsecret.txt",
        f"/runs/{id}/pictures/..%2f..%2f..%2fsecrets/step_00000007.png",
        f"/runs/{id}/pictures/../pictures/step_00000600.png",
        f"/runs/{id}/pictures/linked/step_00000007.png",
        f"/runs/{id}/pictures/views%00/step_00000600.png",
        f"/runs/{id}/pictures/views/step_00000001.png",
        "//etc/passwd",
        "/%",
        "/index.php",
    ):
        status, _, content = ask(served, path)
        assert (status, content) == (404, b"Nothing is here.\n"), path


def test_a_report_is_made_anew_of_the_data_and_never_copied(served, tmp_path):
    entry = served.index.entries[0]
    report = entry.facts.path / "report.html"
    for kind in ("script", "link", "pipe"):
        report.unlink()
        if kind == "script":
            report.write_text("<script>alert(1)</script>")
        elif kind == "link":
            report.symlink_to(tmp_path / "secret.txt")
        else:
            os.mkfifo(report)
        status, headers, content = ask(served, f"/runs/{entry.id}/report.html")
        assert status == 200 and headers["Content-Security-Policy"].startswith("sandbox;")
        site.write_site(served.index, tmp_path / "site")
        (written,) = (tmp_path / "site").rglob("report.html")
        assert not written.is_symlink()
        for found in (content, written.read_bytes()):
            assert b"<h1" in found and b"<script" not in found and b"secret" not in found
    assert os.path.lexists(report) and not report.is_file()
    report.unlink()
    assert ask(served, f"/runs/{entry.id}/report.html")[0] == 404
    site.write_site(served.index, tmp_path / "site")
    assert not list((tmp_path / "site").rglob("report.html"))


def test_requests_only_read_and_name_this_server(served):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(served, "/", method=method)[0] == 501
    for host in ("evil.example", "evil.example:8787", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        assert ask(served, "/", Host=host)[0] == 403, host
    for host in ("localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:80", "192.168.0.7:8787"):
        assert ask(served, "/", Host=host)[0] == 200, host


def test_new_steps_are_served(served, monkeypatch):
    monkeypatch.setattr("ssl_lab.report.dashboard.answers.REFRESH_SEC", 0.0)
    make_run(served.index.folders[0] / "b", status="running", beat=1, experiment=HOSTILE)
    (run,) = [run for run in json.loads(ask(served, "/data/index.json")[2])["runs"] if run["folder"] == "b"]
    assert (run["step"], run["name"], run["status"]) == (210, HOSTILE, "running")


def test_a_folder_that_has_gone_is_told(served, tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_lab.report.dashboard.answers.REFRESH_SEC", 0.0)
    (tmp_path / "runs").rename(tmp_path / "gone")
    status, _, content = ask(served, "/data/index.json")
    assert status == 500 and b"there is no such folder" in content


def test_whatever_is_asked_is_answered(served, monkeypatch, capsys):
    with socket.create_connection(served.server_address[:2]) as raw:
        raw.sendall(b"GET http://[x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    monkeypatch.setattr("ssl_lab.report.dashboard.answers.importances", lambda *_: {"share": float("nan")})
    status, _, content = ask(served, "/data/importance/all.json?metric=x")
    assert status == 500 and content.startswith(b"ValueError: ")
    with socket.create_connection(served.server_address[:2]) as left:  # without reading, which resets the connection
        left.sendall(b"GET /assets/plotly.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert ask(served, "/")[0] == 200
    assert not capsys.readouterr().err


def test_static_files_hold_the_same(tmp_path, capsys):
    run = write_run(tmp_path / "runs" / "a")
    (run / "report.html").write_text("report")
    make_run(tmp_path / "runs" / "b", experiment=HOSTILE)
    out = tmp_path / "site"
    for _ in range(2):  # again over the first
        assert main(["dashboard", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert b'data-mode="static"' in (out / "index.html").read_bytes()
    held = {}
    for path in (out / "data").rglob("*.js"):
        text = path.read_text(encoding="ascii")
        assert text.startswith("receive(") and text.endswith(")")
        name, value = json.loads(f"[{text[8:-1]}]")
        assert name == str(path.relative_to(out / "data"))[:-3]
        held[name] = value
    index = RunIndex([tmp_path / "runs"])
    assert held["index"] == json.loads(site.to_json(index.as_json()))
    (id,) = [entry.id for entry in index.entries if entry.place == "a"]
    assert held[f"run/{id}"]["report"] and OBJECTIVE in held["importance/all"]
    assert "<h1" in (out / "runs" / id / "report.html").read_text()
    assert (out / "runs" / id / "pictures" / "views" / "step_00000600.png").is_file()
    page = (out / "index.html").read_text()
    assert all((out / name).is_file() for name in page.split('"') if name.startswith("assets/"))


def test_a_folder_of_other_files_is_not_written_over(tmp_path, capsys):
    make_run(tmp_path / "runs" / "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    assert main(["dashboard", str(tmp_path / "runs"), "--out", str(tmp_path / "mine")]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"


def test_a_site_that_was_not_finished_is_written_again(tmp_path, monkeypatch):
    index = RunIndex([make_run(tmp_path / "runs" / "a").parent])
    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(site, "read_details", lambda entry: (_ for _ in ()).throw(OSError("full")))
        site.write_site(index, tmp_path / "site")
    assert site.write_site(index, tmp_path / "site").is_file()


@pytest.mark.parametrize("before", ["folder", "data", "temporary"])
def test_a_site_that_was_killed_before_its_first_file_is_written(tmp_path, before):
    index = RunIndex([make_run(tmp_path / "runs" / "a").parent])
    out = tmp_path / "site"
    (out / "data" if before != "folder" else out).mkdir(parents=True)
    if before == "temporary":
        (out / "data" / ".index.js.123.0a1b2c3d.unfinished").write_text("receive(")
    assert site.write_site(index, out).is_file()
    shutil.rmtree(out)
    (out / "data").mkdir(parents=True)
    (out / "data" / "mine.csv").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        site.write_site(index, out)


def test_a_site_is_written_again_wherever_it_was_killed(tmp_path, monkeypatch):
    index = RunIndex([make_run(tmp_path / "runs" / "a").parent])
    write, done = site.replace_file, []

    def killed(path, content, **options):
        if len(done) == limit:
            raise KeyboardInterrupt
        done.append(path)
        return write(path, content, **options)

    monkeypatch.setattr(site, "replace_file", killed)
    for limit in (0, 1, 2, 10, 14):
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            site.write_site(index, tmp_path / f"site_{limit}")
        done[:] = [None] * 1000
        assert site.write_site(index, tmp_path / f"site_{limit}").is_file()


def test_half_requests_lock_nobody_out(served, monkeypatch):
    monkeypatch.setattr("ssl_lab.report.dashboard.server.HEAD_SEC", 0.5)
    monkeypatch.setattr("ssl_lab.report.dashboard.server.MAX_CONNECTIONS", 30)
    before = threading.active_count()
    half = [socket.create_connection(served.server_address[:2]) for _ in range(50)]
    for k, one in enumerate(half):
        one.sendall((b"GET / HTTP/1.1\r\nHost: ", b"", b"GET")[k % 3])
    assert ask(served, "/")[0] == 200
    assert threading.active_count() <= before + 4
    half[-2].settimeout(5)  # one of those that said something and never ended
    for k in range(len(half)):
        half[k].settimeout(5)
    assert half[48].recv(10) == b""
    for one in half:
        one.close()
    assert ask(served, "/")[0] == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n folded\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /" + b"%00" * 100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    ],
)
def test_requests_are_limited(served, request_, status):
    with socket.create_connection(served.server_address[:2]) as raw:
        raw.settimeout(10)
        raw.sendall(request_)
        assert raw.recv(100).split()[1] == status


@pytest.fixture
def guarded(tmp_path):
    write_run(tmp_path / "runs" / "a")
    with Dashboard(RunIndex([tmp_path / "runs"]), "127.0.0.1", 0, token="right") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_token_opens_what_is_closed_without(guarded):
    assert guarded.url.endswith("/?token=right")
    id = guarded.index.entries[0].id
    paths = ("/", "/data/index.json", "/assets/base.js", f"/data/run/{id}.json",
             f"/runs/{id}/pictures/views/step_00000600.png")  # fmt: skip
    for path in paths:
        for wrong in ({}, {"Cookie": f"{guarded.cookie}=wrong"}, {"Cookie": f"other=right; {guarded.cookie}="}):
            status, _, content = ask(guarded, path, **wrong)
            assert status == 403 and b"Open the address that ssl-lab dashboard printed" in content
    for wrong in ("/?token=", "/?token=wrong", "/?token=right&token=wrong", "/?token=%ff", "//evil.example/?token=x"):
        assert ask(guarded, wrong)[0] == 403
    for elsewhere in ("//evil.example/?token=right&metric=a", "/\\evil.example/?token=right&metric=a"):
        status, headers, _ = ask(guarded, elsewhere)
        assert status == 303 and headers["Location"] in ("/?metric=a", "/%5Cevil.example/?metric=a")
    status, headers, _ = ask(guarded, "/?token=right")
    assert status == 303 and headers["Location"] == "/" and "right" not in headers["Location"]
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert cookie.startswith(f"ssl_lab_{guarded.server_address[1]}=")  # browsers share cookies between ports
    assert headers["Referrer-Policy"] == "no-referrer"
    for path in paths:
        assert ask(guarded, path, Cookie=cookie.partition(";")[0])[0] == 200
    assert ask(guarded, "/", Cookie=cookie.partition(";")[0], Host="evil.example")[0] == 403


@pytest.mark.parametrize(
    ("options", "login", "asks"),
    [([], None, False), (["--token"], None, True), (["--host", "0.0.0.0"], None, True), ([], "SSH_CONNECTION", True),
     ([], "SLURM_JOB_ID", True), (["--no-token"], "SSH_CONNECTION", False),
     (["--host", "0.0.0.0", "--no-token"], None, False)],
)  # fmt: skip
def test_who_is_asked_for_a_token(tmp_path, capsys, monkeypatch, options, login, asks):
    monkeypatch.setattr(Dashboard, "serve_forever", lambda self: None)
    for name in ("SSH_CONNECTION", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    if login:
        monkeypatch.setenv(login, "1")
    assert main(["dashboard", str(tmp_path), "--port", "0", *options]) == 0
    out = capsys.readouterr().out
    assert ("?token=" in out) == asks and ("no token protects them" in out) == (not asks)


def test_a_token_is_no_argument_of_a_browser(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(Dashboard, "serve_forever", lambda self: None)
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["dashboard", str(tmp_path), "--port", "0", "--open", "--token"]) == 0 and not opened
    assert "Open this address yourself" in capsys.readouterr().out
    assert main(["dashboard", str(tmp_path), "--port", "0", "--open", "--no-token"]) == 0 and len(opened) == 1


def test_answers_are_made_once_until_something_is_new(served, monkeypatch):
    monkeypatch.setattr("ssl_lab.report.dashboard.answers.REFRESH_SEC", 0.0)
    monkeypatch.setattr("ssl_lab.report.dashboard.answers.COST_SHARE", 1e9)
    made = []
    as_json = served.index.as_json
    monkeypatch.setattr(served.index, "as_json", lambda: made.append(1) or as_json())
    tag = ask(served, "/data/index.json")[1]["ETag"]
    for _ in range(5):
        assert ask(served, "/data/index.json", If_None_Match=tag)[0] == 304
    assert len(made) == 1
    make_run(served.index.folders[0] / "b")
    assert ask(served, "/data/index.json", If_None_Match=tag)[0] == 200
    shutil.rmtree(served.index.folders[0] / "b")
    assert len(json.loads(ask(served, "/data/index.json")[2])["runs"]) == 1 and len(made) == 3
    monkeypatch.setattr("ssl_lab.report.dashboard.answers.COST_SHARE", 1e-9)
    ask(served, "/data/index.json")
    monkeypatch.setattr(served.index, "refresh", lambda: pytest.fail("looked again too soon"))
    assert ask(served, "/data/index.json")[0] == 200


def test_a_site_written_again_forgets_runs_that_are_gone(tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "site"
    for name in ("a", "b"):
        make_run(runs / name)
    before = RunIndex([runs])
    site.write_site(before, out)
    gone = next(entry.id for entry in before.entries if entry.facts.path.name == "b")
    assert list((out / "data").rglob(f"{gone}.js"))
    shutil.rmtree(runs / "b")
    site.write_site(RunIndex([runs]), out)
    fresh = tmp_path / "fresh"
    site.write_site(RunIndex([runs]), fresh)
    assert {p.relative_to(out) for p in out.rglob("*")} == {p.relative_to(fresh) for p in fresh.rglob("*")}
    assert not list(out.rglob(f"*{gone}*"))


def test_a_site_takes_nothing_away_that_it_has_not_written(tmp_path):
    runs = make_run(tmp_path / "runs" / "a").parent
    for out in (tmp_path, runs):
        with pytest.raises(ValueError, match="the runs lie in it"):
            site.write_site(RunIndex([runs]), out)
    web = tmp_path / "web"
    (web / "data").mkdir(parents=True)
    (web / "data" / "index.js").write_text("export const x = 1")
    with pytest.raises(ValueError, match="holds other files"):
        site.write_site(RunIndex([runs]), web)
    out = tmp_path / "site"
    site.write_site(RunIndex([runs]), out)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="stays as it is"):
        site.write_site(RunIndex([tmp_path / "none"]), out)
    assert list((out / "data" / "run").iterdir())
    mine = make_run(out / "runs" / "mine")
    (out / "data" / "mine.csv").write_text("mine")
    site.write_site(RunIndex([runs]), out)
    assert (mine / "summary.json").is_file() and (out / "data" / "mine.csv").is_file()
    shutil.move(out / "runs", tmp_path / "moved")
    (out / "runs").symlink_to(runs)
    with pytest.raises(ValueError, match="is a link"):
        site.write_site(RunIndex([runs]), out)
    assert (runs / "a" / "summary.json").is_file()


def test_errors_are_told(tmp_path, capsys):
    assert main(["dashboard", str(tmp_path / "none")]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    with Dashboard(RunIndex([tmp_path]), "127.0.0.1", 0) as taken:
        for port in (taken.server_address[1], 99999):
            assert main(["dashboard", str(tmp_path), "--port", str(port)]) == 1
            assert "Choose another port with --port" in capsys.readouterr().err


def test_an_empty_folder_is_no_error(tmp_path):
    index = RunIndex([tmp_path])
    told = index.as_json()
    assert told["runs"] == [] and told["folders"] == [str(tmp_path)]
    site.write_site(index, tmp_path / "site")
    assert (tmp_path / "site" / "data" / "index.js").is_file()


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    make_run(tmp_path / "a")
    command = [sys.executable, "-m", "ssl_lab.cli.main", "dashboard", str(tmp_path), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    ) as process:
        assert process.stdout.readline().startswith("1 run read in")
        address = process.stdout.readline().split()[1]
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=20)
        connection.request("GET", "/data/index.json")
        assert json.loads(connection.getresponse().read())["runs"][0]["folder"] == "a"
        connection.close()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert not process.stderr.read()


def test_completion():
    assert completions("ssl-lab dash") == ["dashboard"]
    assert completions("ssl-lab dashboard --p") == ["--port"]
