"""A hub of one's own on the loopback: what huggingface_hub asks of the real one to make a repository and commit files."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """What the server was told: repositories made, and files of commits."""

    def __init__(self, token):
        self.token = token
        self.repositories = {}
        self.files = {}
        self.messages = []
        self.large = {}


@contextmanager
def running_hub(token="hf_test"):
    """The hub and its address; a request without the token is refused."""
    hub = Hub(token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, value, status=200):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def body(self):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def allowed(self):
            if self.headers.get("Authorization") == f"Bearer {hub.token}":
                return True
            self.body()
            self.answer({"error": "Invalid credentials"}, status=401)
            return False

        def do_GET(self):
            if not self.allowed():
                return
            if self.path == "/api/whoami-v2":
                self.answer({"type": "user", "name": "me", "auth": {"type": "access_token"}})
            else:
                self.answer({"error": f"not found: {self.path}"}, status=404)

        def do_PUT(self):
            hub.large[self.path.rsplit("/", 1)[1]] = self.body()
            self.answer({})

        def do_POST(self):
            if not self.allowed():
                return
            address = f"http://127.0.0.1:{self.server.server_port}"
            if self.path.endswith("/commit/main"):
                self.commit(self.body().decode().splitlines())
                self.answer({"commitUrl": f"{address}/me/x/commit/1", "commitOid": "1" * 40, "success": True})
                return
            asked = json.loads(self.body())
            if self.path == "/api/repos/create":
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                if name.startswith("other/"):
                    self.answer({"error": "You have no write access to other"}, status=403)
                    return
                hub.repositories[name] = asked
                self.answer({"url": f"{address}/{name}", "name": name, "id": name})
            elif self.path.endswith("/preupload/main"):
                modes = [
                    {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".onnx") else "regular",
                     "shouldIgnore": False, "oid": None}
                    for file in asked["files"]
                ]  # fmt: skip
                self.answer({"files": modes})
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**entry, "actions": {"upload": {"href": f"{address}/lfs/{entry['oid']}"}}}
                    for entry in asked["objects"]
                ]
                self.answer({"transfer": "basic", "objects": objects})
            elif self.path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            else:
                self.answer({"error": f"not found: {self.path}"}, status=404)

        def commit(self, lines):
            for line in map(json.loads, lines):
                value = line["value"]
                if line["key"] == "header":
                    hub.messages.append(value["summary"])
                elif line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.large[value["oid"]]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
