"""packhouse and its peers as processes: configured, started, and asked what they cost."""
import base64, hashlib, http.client, json, os, pathlib, re, shutil, signal, socket, ssl, subprocess, time, urllib.error, urllib.request

from files import image_config, publish_body
from install import CLIENTS, DOCKER_REGISTRY, NODE, NORA_PROGRAM, ROOT, VERDACCIO

PIN = (os.cpu_count() or 1) >= 2 and shutil.which("taskset")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process, its children, and what it costs."""
    name = version = ""
    headers = {}
    prefix = ""

    def __init__(self, world, pinned):
        self.folder, self.pinned = world.folder, bool(PIN and pinned)

    def start(self, command, port, environment=None, tls_port=None):
        self.port, self.origin = port, f"http://127.0.0.1:{port}"
        self.tls_origin = f"https://127.0.0.1:{tls_port}"
        log = open(self.folder / f"{self.name}.log", "ab")
        core = ["taskset", "-c", "1"] if self.pinned else []
        self.process = subprocess.Popen([*core, *map(str, command)], stdout=log, stderr=log, env=environment, cwd=self.folder)
        end = time.time() + 60
        while time.time() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise SystemExit(f"{self.name} did not start:\n{(self.folder / f'{self.name}.log').read_text()[-3000:]}")

    def stop(self, by=signal.SIGTERM):
        self.process.send_signal(by)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tree(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    todo += [int(child) for child in task.read_text().split()]
                except OSError:
                    pass
        return found

    def cpu(self):
        """Seconds of CPU, user and system, of the process and its children so far: what utime and stime of /proc/PID/stat
        add up to, from the process's own clock, which does not count in hundredths of a second."""
        total = 0.0
        for pid in self.tree():
            try:
                total += time.clock_gettime((~pid << 3) | 2)
            except OSError:
                pass
        return total

    def memory(self, field="VmRSS"):
        """Bytes that the processes hold now, by a field of /proc/PID/status: VmRSS, RssAnon; VmHWM is the most ever."""
        total = 0
        for pid in self.tree():
            try:
                total += int(re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])
            except (OSError, TypeError):
                pass
        return total << 10

    def settle(self, longest=20):
        """Waits until the server does nothing more: some store what they have sent only afterwards."""
        before, end = self.cpu(), time.time() + longest
        while time.time() < end:
            time.sleep(0.1)
            now = self.cpu()
            if now - before < 0.003:
                return
            before = now

    def get(self, path, headers=None):
        request = urllib.request.Request(self.origin + path, headers={**self.headers, **(headers or {})})
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120)

    def send(self, method, path, body, headers=None):
        """One request with a body; gives the answer's headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path.removeprefix(self.origin), body, {**self.headers, **(headers or {})})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        if reply.status >= 300:
            raise SystemExit(f"{self.name} refuses {method} {path}: {reply.status} {text[:500]!r}")
        return reply.headers

    def publish(self, name, body, version="1.0.0"):
        """Publishes an npm package of one tarball."""
        document = json.dumps(publish_body(name, version, body)).encode()
        self.send("PUT", f"{self.prefix}/{name.replace('/', '%2f')}", document, {"Content-Type": "application/json"})

    def push_blob(self, body, repository="bench/image"):
        """Pushes a layer and an image of it; gives the layer's path."""
        def blob(content):
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            place = self.send("POST", f"/v2/{repository}/blobs/uploads/", b"")["Location"]
            self.send("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", content, {"Content-Type": "application/octet-stream"})
            return digest
        layer = blob(body)
        config = image_config([layer])
        described = lambda kind, content, digest: {"mediaType": f"application/vnd.oci.image.{kind}", "size": len(content), "digest": digest}
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("config.v1+json", config, blob(config)), "layers": [described("layer.v1.tar", body, layer)],
        }
        self.send("PUT", f"/v2/{repository}/manifests/v{layer[7:19]}", json.dumps(manifest).encode(), {"Content-Type": manifest["mediaType"]})
        return f"/v2/{repository}/blobs/{layer}"

    def digest(self, path):
        """The SHA-256 of what it sends."""
        summed = hashlib.sha256()
        with self.get(path) as reply:
            while part := reply.read(1 << 20):
                summed.update(part)
        return summed.hexdigest()


NGINX = """worker_processes {workers}; pid {folder}/{name}.pid; daemon off; error_log {folder}/{name}.error warn; {user}
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  sendfile on; tcp_nopush on; tcp_nodelay on; sendfile_max_chunk 2m; access_log off; server_tokens off; etag on;
  log_format counted '$request_method $status $body_bytes_sent $request_uri';
  keepalive_timeout 65; keepalive_requests 100000000; default_type application/octet-stream; client_max_body_size 0;
  open_file_cache max=10000 inactive=600s; open_file_cache_valid 600s; open_file_cache_min_uses 1;
  client_body_temp_path {folder}/{name}-b; proxy_temp_path {folder}/{name}-p; fastcgi_temp_path {folder}/{name}-f;
  uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
  {more}
}}
"""


class Nginx(Server):
    def __init__(self, world, name, more, port, pinned=True, tls_port=None):
        super().__init__(world, pinned)
        self.name = name
        config = self.folder / f"{name}.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        workers = 1 if self.pinned or name == "upstream" else os.cpu_count()
        config.write_text(NGINX.format(folder=self.folder, name=name, user=user, more=more, workers=workers))
        self.version = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip().split("/")[-1]
        self.start(["nginx", "-c", config, "-p", self.folder], port, tls_port=tls_port)


class Upstream(Nginx):
    """The local upstream: packuments, tarballs and layers as plain files. It is nobody's peer, so it is not pinned. It counts
    what it sends, and keeps no file open: most are asked for once by each server."""

    def __init__(self, world):
        port, self.log = free_port(), world.folder / "upstream.access"
        super().__init__(world, "upstream", f"""server {{ listen 127.0.0.1:{port} backlog=4096; root {world.folder}/files;
    access_log {self.log} counted buffer=64k flush=50ms; open_file_cache off;
    location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
    location /v2/ {{ }}
    location ~ ^/(?<name>[^/]+)$ {{ default_type application/json; try_files /packuments/$name.json =404; }}
    location ~ ^/[^/]+/-/(?<file>[^/]+)$ {{ try_files /tarballs/$file =404; }} }}""", port, pinned=False)

    def fetches(self, path):
        """How often the file was fetched, and how many bytes of it went out."""
        time.sleep(0.2)
        lines = [line.split(" ", 3) for line in self.log.read_text().splitlines() if line.endswith(path)]
        bodies = [int(sent) for method, status, sent, _ in lines if method == "GET" and status in ("200", "206")]
        return len(bodies), sum(bodies)


CACHE = """proxy_cache c; proxy_cache_valid 200 24h; proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s;
      proxy_http_version 1.1; proxy_set_header Connection "";"""
# In pieces of this size the cache writes its files, and how they are written decides how fast they are read.
LARGE_BUFFERS = "proxy_buffers 32 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 1m;"


class NginxPeer(Nginx):
    """Static files, and `proxy_cache` before the upstream for names that begin as cold ones do."""
    def __init__(self, world, upstream, pinned=True, log=False, name="nginx", buffers=LARGE_BUFFERS):
        port, tls_port = free_port(), free_port()
        folder, access = world.folder, f"access_log {world.folder}/access.log combined buffer=64k;" if log else ""
        cold = f"proxy_pass http://up; {CACHE} {buffers}"
        super().__init__(world, name, f"""proxy_cache_path {folder}/{name}-cache levels=1:2 keys_zone=c:50m max_size=50g inactive=24h use_temp_path=off;
  upstream up {{ server 127.0.0.1:{upstream.port}; keepalive 32; }}
  ssl_certificate {world.certificate}; ssl_certificate_key {world.key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:10m;
  server {{ listen 127.0.0.1:{port} reuseport backlog=4096; listen 127.0.0.1:{tls_port} ssl http2 reuseport backlog=4096; {access}
    root {folder}/files/static; gzip_static on; http2_max_concurrent_streams 256;
    location ~ \\.json$ {{ default_type application/json; }}
    location /cold- {{ {cold} }}
    location /v2/ {{ {cold} }} }}""", port, pinned, tls_port)


class FileTree(Nginx):
    """A folder as plain files, by nginx."""
    def __init__(self, world, name, files, pinned=True):
        port = free_port()
        super().__init__(world, name, f"server {{ listen 127.0.0.1:{port} backlog=4096; root {files}; disable_symlinks off; }}", port, pinned)


class NginxMirror(Nginx):
    """`proxy_cache` before a registry of the outside world, for clients that know the path of every file."""
    def __init__(self, world, origin):
        port = free_port()
        host = origin.split("/")[2]
        super().__init__(world, "nginx", f"""proxy_cache_path {world.folder}/nginx-mirror levels=1:2 keys_zone=c:50m max_size=20g inactive=24h use_temp_path=off;
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass {origin}/; proxy_ssl_server_name on; proxy_set_header Host {host}; {CACHE} {LARGE_BUFFERS} }} }}""", port)


class Verdaccio(Server):
    name = "verdaccio"
    version = VERDACCIO

    def __init__(self, world, upstream_origin, pinned=True):
        super().__init__(world, pinned)
        port = free_port()
        (self.folder / "verdaccio.yaml").write_text(f"""storage: {self.folder}/verdaccio-storage
uplinks: {{ up: {{ url: "{upstream_origin}", maxage: 24h, cache: true }} }}
packages:
  '@bench/*': {{ access: $all, publish: $all }}
  '**': {{ access: $all, proxy: up }}
max_body_size: 100mb
log: {{ type: stdout, format: json, level: error }}
web: {{ enable: false }}
""")
        program = CLIENTS / "verdaccio/node_modules/verdaccio/bin/verdaccio"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "NODE_ENV": "production"}
        for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"]:
            if name in os.environ:
                environment[name] = os.environ[name]
        self.start([NODE, program, "--config", self.folder / "verdaccio.yaml", "--listen", f"http://127.0.0.1:{port}"], port, environment)


class DockerRegistry(Server):
    """Hosting, or a pull-through cache of an upstream."""
    name = "docker-registry"

    def __init__(self, world, upstream=None, pinned=True):
        super().__init__(world, pinned)
        port = free_port()
        config = self.folder / "docker-registry.yaml"
        config.write_text(json.dumps({
            "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": f"{self.folder}/docker-registry", "maxthreads": 100}, "cache": {"blobdescriptor": "inmemory"},
                        "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"}, **({"proxy": {"remoteurl": upstream.origin}} if upstream else {}),
        }))
        said = subprocess.run([DOCKER_REGISTRY, "--version"], capture_output=True, text=True).stdout
        self.version = said.split()[-1].lstrip("v")
        self.start([DOCKER_REGISTRY, "serve", config], port)


class Nora(Server):
    name = "nora"

    def __init__(self, world):
        super().__init__(world, pinned=True)
        port = free_port()
        self.version = subprocess.run([NORA_PROGRAM, "--version"], capture_output=True, text=True).stdout.strip().split(" ")[-1]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "NORA_HOST": "127.0.0.1", "NORA_PORT": str(port),
                       "NORA_STORAGE_PATH": f"{self.folder}/nora"}
        self.start([NORA_PROGRAM, "serve"], port, environment)


class Packhouse(Server):
    """Every request carries a token and meets the real access rules: the packages are private."""
    prefix = "/npm"
    program = ROOT / "target/release/packhouse"

    def __init__(self, world, upstream_origin, pinned=True, log=False, upstreams=("npm", "container"), name="packhouse"):
        super().__init__(world, pinned)
        self.version = subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.strip().split(" ")[-1]
        self.name, self.ports = name, (free_port(), free_port())
        self.config, self.data = self.folder / f"{name}.toml", self.folder / f"{name}-data"
        named = "".join(f'[[ecosystem.{name}.upstream]]\nname = "up"\nurl = "{upstream_origin}"\n{self.more(name)}' for name in upstreams)
        self.config.write_text(f"""public_url = "http://127.0.0.1:{self.ports[0]}"
data_dir = "{self.data}"
[log]
level = "{'info' if log else 'warn'}"
[server]
listen = ["127.0.0.1:{self.ports[0]}"]
[server.tls]
listen = ["127.0.0.1:{self.ports[1]}"]
cert_file = "{world.certificate}"
key_file = "{world.key}"
[upstream]
allow_private = ["127.0.0.1/32"]
document_limit_bytes = 268435456
{named}""")
        self.again()
        try:
            self.command("org", "add", "bench", "--owner", "admin")
            self.token = json.loads(self.command("token", "add", "admin", "--scopes", "read:packages,write:packages", "--json"))["token"]
        except BaseException:
            # Nobody knows of it yet who would stop it.
            self.stop()
            raise
        self.headers = {"Authorization": f"Bearer {self.token}"}

    @staticmethod
    def more(ecosystem):
        return 'hosts = ["up.test"]\n' if ecosystem == "container" else ""

    def again(self):
        """Starts, or starts anew on the same data."""
        self.start([self.program, "serve", "--config", self.config], self.ports[0], tls_port=self.ports[1])

    def command(self, *words):
        done = subprocess.run([self.program, *words, "--config", self.config], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"packhouse {' '.join(words)}: {done.stderr}")
        return done.stdout

    def mirrored(self, path):
        """The path of a layer of the upstream here."""
        return path.replace("/v2/", "/v2/up.test/", 1)
