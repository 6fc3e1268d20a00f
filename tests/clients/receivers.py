"""Servers that alerts and the audit are sent to, made of what others wrote: a mail server
(aiosmtpd), a bucket that checks signatures as Amazon's own client makes them (botocore), and a
collector that reads logs as OpenTelemetry's own types (opentelemetry-proto).

    receivers.py smtp starttls|tls CERTIFICATE KEY USER PASSWORD
    receivers.py s3 ACCESS_KEY SECRET_KEY FOLDER
    receivers.py otlp

Each listens on 127.0.0.1, prints its port, then one line of JSON for each thing that it took.
"""

import hashlib
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

lock = threading.Lock()


def say(thing):
    with lock:
        print(json.dumps(thing), flush=True)


def smtp(how, certificate, key, user, password):
    import asyncio

    from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    class Handler:
        async def handle_DATA(self, server, session, envelope):
            say(
                {
                    "authenticated": session.authenticated,
                    "tls": session.ssl is not None or how == "tls",
                    "from": envelope.mail_from,
                    "to": envelope.rcpt_tos,
                    "content": envelope.content.decode(),
                }
            )
            return "250 taken"

    def authenticate(server, session, envelope, mechanism, data):
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (
            user.encode(),
            password.encode(),
        )
        if not good:
            say({"refused": mechanism})
        return AuthResult(success=good, handled=False)

    def protocol():
        # Behind a wrapped socket the protocol knows of no TLS, so it is told not to ask for it.
        starttls = how == "starttls"
        return SMTP(
            Handler(),
            authenticator=authenticate,
            auth_required=True,
            auth_require_tls=starttls,
            require_starttls=starttls,
            tls_context=context if starttls else None,
            ident="test",
        )

    async def serve():
        loop = asyncio.get_running_loop()
        wrapped = context if how == "tls" else None
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=wrapped)
        say({"port": server.sockets[0].getsockname()[1]})
        await server.serve_forever()

    asyncio.run(serve())


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers["content-length"]))

    def answer(self, status, kind="text/plain", body=b""):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def http(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    say({"port": server.server_address[1]})
    server.serve_forever()


def s3(access_key, secret_key, folder):
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    class Signer(S3SigV4Auth):
        """Signs as of the time that the request names, and the headers that it names."""

        def __init__(self, region, names):
            super().__init__(Credentials(access_key, secret_key), "s3", region)
            self.names = names

        def headers_to_sign(self, request):
            headers = super().headers_to_sign(request)
            for name in list(headers.keys()):
                if name not in self.names:
                    del headers[name]
            return headers

    def signature(handler, body):
        given = handler.headers["authorization"]
        parts = dict(part.strip().split("=", 1) for part in given.split(" ", 1)[1].split(","))
        key, _, region, _, _ = parts["Credential"].split("/")
        if key != access_key:
            return "unknown", parts["Signature"]
        url = f"http://{handler.headers['host']}{handler.path}"
        names = parts["SignedHeaders"].split(";")
        headers = {name: handler.headers[name] for name in names}
        request = AWSRequest(method=handler.command, url=url, data=body, headers=headers)
        request.context["timestamp"] = handler.headers["x-amz-date"]
        signer = Signer(region, names)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        return signer.signature(text, request), parts["Signature"]

    class Bucket(Http):
        def do_PUT(self):
            body = self.body()
            wanted, given = signature(self, body)
            if wanted != given:
                say({"refused": self.path})
                return self.answer(403, "application/xml", b"<Code>SignatureDoesNotMatch</Code>")
            if hashlib.sha256(body).hexdigest() != self.headers["x-amz-content-sha256"]:
                return self.answer(400, "application/xml", b"<Code>BadDigest</Code>")
            path = Path(folder, self.path.lstrip("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whoever looks finds the whole object or none.
            part = Path(f"{folder}.part")
            with lock:
                part.write_bytes(body)
                part.replace(path)
            say({"put": self.path, "bytes": len(body)})
            self.answer(200)

    http(Bucket)


def otlp():
    from google.protobuf.json_format import Parse
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
        ExportLogsServiceRequest,
    )

    class Collector(Http):
        def do_POST(self):
            body = self.body()
            if self.path != "/v1/logs" or self.headers["content-type"] != "application/json":
                return self.answer(404)
            if self.headers["authorization"] != "Bearer collector-token":
                return self.answer(401)
            # An unknown field is an error.
            logs = Parse(body, ExportLogsServiceRequest())
            for resource in logs.resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        say(
                            {
                                "resource": attributes(resource.resource.attributes),
                                "at": record.time_unix_nano,
                                "event": record.event_name,
                                "body": record.body.string_value,
                                "attributes": attributes(record.attributes),
                            }
                        )
            self.answer(200, "application/json", b"{}")

    def attributes(pairs):
        value = lambda any: getattr(any, any.WhichOneof("value"))
        return {pair.key: value(pair.value) for pair in pairs}

    http(Collector)


if __name__ == "__main__":
    {"smtp": smtp, "s3": s3, "otlp": otlp}[sys.argv[1]](*sys.argv[2:])
