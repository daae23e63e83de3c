"""packhouse and its peers as processes: installed, configured, started, and asked what they cost."""
import json, os, pathlib, platform, re, shutil, signal, socket, subprocess, time, urllib.error, urllib.request

from files import publish_body

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLIENTS = pathlib.Path(os.environ.get("PACKHOUSE_CLIENTS_DIR", ROOT / "tests/.clients"))
TICK = os.sysconf("SC_CLK_TCK")
VERDACCIO, NODE24 = "6.10.4", "24.21.0"
PIN = (os.cpu_count() or 1) >= 2 and shutil.which("taskset")
MACHINE = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
NODE = CLIENTS / f"node24/node_modules/node-linux-{MACHINE}/bin/node"


def say(text):
    print(text, flush=True)


def quietly(command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **more)


def install():
    missing = [tool for tool in ["nginx", "wrk", "curl", "taskset"] if not shutil.which(tool)]
    if missing:
        say(f"installing {' '.join(missing)}")
        names = {"taskset": "util-linux"}
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quietly(["apt-get", "-qq", "update"], env=environment)
        quietly(["apt-get", "-qq", "-y", "--no-install-recommends", "install", *[names.get(tool, tool) for tool in missing]], env=environment)
    quietly([ROOT / "tests/run", "--install"])
    from_npm("verdaccio", {"dependencies": {"verdaccio": VERDACCIO}, "overrides": {"node-fetch": "2.7.0"}})
    from_npm("node24", {"dependencies": {f"node-linux-{MACHINE}": NODE24}})


def from_npm(folder, manifest):
    folder = CLIENTS / folder
    wanted = json.dumps({"private": True, **manifest})
    done = folder / ".manifest"
    if done.exists() and done.read_text() == wanted:
        return
    say(f"installing {folder.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(wanted)
    quietly([CLIENTS / "bin/npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"], cwd=folder)
    done.write_text(wanted)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process, its children, and what it costs."""
    name = version = ""
    headers = {}

    def start(self, command, port, environment=None, pin=True):
        self.port, self.origin = port, f"http://127.0.0.1:{port}"
        log = open(self.folder / f"{self.name}.log", "ab")
        prefix = ["taskset", "-c", "1"] if PIN and pin else []
        self.process = subprocess.Popen([*prefix, *map(str, command)], stdout=log, stderr=log, env=environment, cwd=self.folder)
        end = time.time() + 30
        while time.time() < end:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.name} did not start:\n{(self.folder / f'{self.name}.log').read_text()[-3000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()

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
        """Seconds of CPU, user and system, of the process and its children so far."""
        total = 0
        for pid in self.tree():
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
            except OSError:
                pass
        return total / TICK

    def peak(self):
        """The most memory the processes ever held, in MB."""
        total = 0
        for pid in self.tree():
            try:
                total += int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])
            except (OSError, TypeError):
                pass
        return total / 1024

    def get(self, path, headers=None):
        request = urllib.request.Request(self.origin + path, headers={**self.headers, **(headers or {})})
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120)


NGINX = """worker_processes 1; pid {folder}/{name}.pid; daemon off; error_log {folder}/{name}.error warn; {user}
worker_rlimit_nofile 16384;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  sendfile on; tcp_nopush on; tcp_nodelay on; sendfile_max_chunk 2m; access_log off; server_tokens off; etag on;
  keepalive_timeout 65; keepalive_requests 100000000; default_type application/octet-stream;
  open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s; open_file_cache_min_uses 1;
  client_body_temp_path {folder}/{name}-b; proxy_temp_path {folder}/{name}-p; fastcgi_temp_path {folder}/{name}-f;
  uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
  {more}
}}
"""


class Nginx(Server):
    def __init__(self, name, folder, more, port, pin=True):
        self.name, self.folder = name, folder
        config = folder / f"{name}.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(NGINX.format(folder=folder, name=name, user=user, more=more))
        self.version = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip().split("/")[-1]
        self.start(["nginx", "-c", config, "-p", folder], port, pin=pin)


def upstream(folder, files, port):
    """The local upstream: packuments and tarballs as plain files. It is nobody's peer, so it is not pinned."""
    return Nginx("upstream", folder, f"""server {{ listen 127.0.0.1:{port} backlog=4096; root {files};
    location ~ ^/(?<name>[^/]+)$ {{ default_type application/json; try_files /packuments/$name.json =404; }}
    location ~ ^/[^/]+/-/(?<file>[^/]+)$ {{ try_files /tarballs/$file =404; }} }}""", port, pin=False)


class NginxPeer(Nginx):
    """Static files, and a cache in front of the upstream for the cold rows."""
    def __init__(self, folder, files, upstream_port, log=False):
        port = free_port()
        log = f"access_log {folder}/nginx-access.log;" if log else ""
        super().__init__("nginx", folder, f"""proxy_cache_path {folder}/nginx-cache levels=1:2 keys_zone=c:50m max_size=20g inactive=24h use_temp_path=off;
  upstream up {{ server 127.0.0.1:{upstream_port}; keepalive 32; }}
  server {{ listen 127.0.0.1:{port} reuseport backlog=4096; {log} root {files}/static; gzip_static on; gzip_types application/json; default_type application/json;
    location /cold- {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache c; proxy_cache_valid 200 24h;
      proxy_cache_lock on; proxy_buffers 32 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 1m; }} }}""", port)

    def path(self, row):
        return {"packument": "/hot.json"}.get(row, f"/{row}.tgz")

    def prefix(self):
        return ""


class MavenTree(Nginx):
    """A Maven repository as plain files, by nginx."""
    def __init__(self, name, folder, files, pin=True):
        port = free_port()
        super().__init__(name, folder, f"server {{ listen 127.0.0.1:{port} backlog=4096; root {files}; disable_symlinks off; }}", port, pin=pin)

    def prefix(self):
        return ""


class Verdaccio(Server):
    name = "verdaccio"
    version = VERDACCIO

    def __init__(self, folder, upstream_origin):
        self.folder = folder
        port = free_port()
        (folder / "verdaccio.yaml").write_text(f"""storage: {folder}/verdaccio-storage
uplinks: {{ up: {{ url: "{upstream_origin}", maxage: 24h, cache: true }} }}
packages:
  '@bench/*': {{ access: $all, publish: $all }}
  '**': {{ access: $all, proxy: up }}
max_body_size: 100mb
log: {{ type: stdout, format: json, level: error }}
web: {{ enable: false }}
""")
        program = CLIENTS / "verdaccio/node_modules/verdaccio/bin/verdaccio"
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "NODE_ENV": "production"}
        for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"]:
            if name in os.environ:
                environment[name] = os.environ[name]
        self.start([NODE, program, "--config", folder / "verdaccio.yaml", "--listen", f"http://127.0.0.1:{port}"], port, environment)

    def prepare(self, files):
        for row, body in files.hosted.items():
            name = {"tarball-20k": "@bench/small", "tarball-1m": "@bench/large"}[row]
            publish(self, f"/{name.replace('/', '%2f')}", publish_body(name, "1.0.0", body))

    def path(self, row):
        return {"tarball-20k": "/@bench/small/-/small-1.0.0.tgz", "tarball-1m": "/@bench/large/-/large-1.0.0.tgz", "packument": "/hot"}[row]

    def prefix(self):
        return ""


class Packhouse(Server):
    name = "packhouse"

    def __init__(self, folder, upstream_origin, level="warn", ecosystem="npm"):
        self.folder = folder
        port = free_port()
        program = ROOT / "target/release/packhouse"
        self.version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip().split(" ")[-1]
        config = folder / "packhouse.toml"
        config.write_text(f"""public_url = "http://127.0.0.1:{port}"
data_dir = "{folder}/packhouse-data"
[log]
level = "{level}"
[server]
listen = ["127.0.0.1:{port}"]
[upstream]
allow_private = ["127.0.0.1/32"]
[[ecosystem.{ecosystem}.upstream]]
name = "up"
url = "{upstream_origin}"
""")
        self.start([program, "serve", "--config", config], port)
        command = lambda *words: subprocess.run([program, *words, "--config", config], check=True, capture_output=True, text=True).stdout
        command("org", "add", "bench", "--owner", "admin")
        token = json.loads(command("token", "add", "admin", "--scopes", "read:packages,write:packages", "--json"))["token"]
        # Every request carries a token and meets the real access rules: the packages are private.
        self.headers = {"Authorization": f"Bearer {token}"}

    def prepare(self, files):
        for row, body in files.hosted.items():
            name = {"tarball-20k": "@bench/small", "tarball-1m": "@bench/large"}[row]
            publish(self, f"/npm/{name.replace('/', '%2f')}", publish_body(name, "1.0.0", body))

    def path(self, row):
        return "/npm" + Verdaccio.path(self, row)

    def prefix(self):
        return "/npm"


def publish(server, path, body):
    headers = {"Content-Type": "application/json", **server.headers}
    request = urllib.request.Request(server.origin + path, json.dumps(body).encode(), headers, method="PUT")
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{server.name} refuses a publish: {error.code} {error.read()[:500]!r}")
