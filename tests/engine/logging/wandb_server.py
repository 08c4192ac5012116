"""A stand-in for W&B's service on this machine: it answers what a client asks at first, and can be switched off."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers with what it takes for a run to start; ``requests`` are the paths that were asked for.

    Args:
        num_file_streams: Batches of rows that are taken before it goes away; None for all.
    """

    daemon_threads = True

    def __init__(self, num_file_streams=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.num_file_streams, self.requests = num_file_streams, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def go_away(self):
        threading.Thread(target=lambda: (self.shutdown(), self.server_close()), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.path, body))
        self._answer({"data": answer(json.loads(body), self.server.url)} if self.path.endswith("graphql") else {})
        if "file_stream" in self.path:
            streams = sum("file_stream" in path for path, _ in self.server.requests)
            if self.server.num_file_streams is not None and streams >= self.server.num_file_streams:
                self.server.go_away()

    def do_GET(self):
        self.server.requests.append((self.path, b""))
        self._answer({})

    do_PUT = do_POST

    def _answer(self, content):
        content = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def answer(request, url):
    query, variables = request["query"], request.get("variables") or {}
    if "createRunFiles" in query:
        files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in variables.get("files", [])]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
    entity = {"id": "e", "name": "someone"}
    if "upsertBucket" in query or "UpsertBucket" in query:
        project = {"id": "p", "name": "ssl_lab", "entity": entity}
        bucket = {"id": "b", "name": "run", "displayName": "run", "description": "", "config": "{}", "sweepName": "",
                  "historyLineCount": 0, "project": project}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if "viewer" in query.lower():
        return {"viewer": {**entity, "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}}
    return {"model": None, "project": None, "serverInfo": None}
