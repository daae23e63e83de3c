"""Rows in which real clients do real work: installs, builds, publishes, images."""
import hashlib, json, os, pathlib, re, shutil, subprocess, sys, tempfile, time

from files import image_config, publish_body, tarball
from install import CLIENTS
from loads import Target, alternate, run, touch, wrk_list
from rows import Row, ratio
from servers import FileTree, NginxMirror

APPLICATION = {
    "name": "app", "version": "1.0.0", "private": True,
    "dependencies": {"react": "^18.3.1", "react-dom": "^18.3.1", "react-router-dom": "^6.26.0", "axios": "^1.7.0", "@mui/material": "^5.16.0",
                     "express": "^4.21.0", "lodash": "^4.17.21"},
    "devDependencies": {"vite": "^5.4.0", "typescript": "~5.5.0", "eslint": "^8.57.0", "vitest": "^2.0.0", "tailwindcss": "^3.4.0",
                        "jest": "^29.7.0", "webpack": "^5.94.0", "webpack-cli": "^5.1.4", "webpack-dev-server": "^5.1.0", "@babel/preset-env": "^7.25.0",
                        "@babel/preset-react": "^7.24.0", "eslint-plugin-react": "^7.35.0", "eslint-plugin-import": "^2.30.0"},
    # Not every registry has all platform builds of the newest one, and then `npm ci` refuses its lock file.
    "overrides": {"rollup": "4.52.5"},
}
LEAST_PACKAGES = 700


def npm(folder, home, *words):
    bare = {"PATH": f"{CLIENTS / 'bin'}:/usr/bin:/bin", "HOME": str(home), "NPM_CONFIG_CACHE": str(home / "cache")}
    for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"]:
        if name in os.environ:
            bare[name] = os.environ[name]
    more = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--no-update-notifier"]
    started = time.time()
    done = subprocess.run([CLIENTS / "bin/npm", *words, *more], cwd=folder, env=bare, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"npm {' '.join(words)} failed:\n{done.stderr}")
    return time.time() - started, done.stdout


def one(took):
    return {"rate": 1 / took, "count": 1, "took": took}


def npm_ci(world):
    """`npm ci` of a real lock file with an empty client cache, the servers warm. Each server is given the lock file that
    would have been made with it: one that names its own addresses."""
    home, app = world.folder / "home", world.folder / "app"
    home.mkdir()
    app.mkdir()
    origin = npm(app, home, "config", "get", "registry")[1].strip().rstrip("/")
    (app / "package.json").write_text(json.dumps(APPLICATION))
    npm(app, home, "install", "--package-lock-only")
    lock = (app / "package-lock.json").read_text()
    count = len(json.loads(lock)["packages"]) - 1
    if count < LEAST_PACKAGES:
        sys.exit(f"the lock file has only {count} packages")
    world.notes.append(f"{count} packages")
    bases = {re.match(r"https?://.*?(?=/(?:@[^/]+/)?[^/]+/-/)", entry["resolved"])[0] for entry in json.loads(lock)["packages"].values() if "resolved" in entry}
    servers = [world.verdaccio(origin), world.started(NginxMirror(world, origin)), world.packhouse(origin, upstreams=["npm"])]

    def load(target, _):
        shutil.rmtree(app / "node_modules", ignore_errors=True)
        shutil.rmtree(home / "cache", ignore_errors=True)
        own = target.origin + target.server.prefix
        text = lock
        for base in bases:
            text = text.replace(base + "/", own + "/")
        (app / "package-lock.json").write_text(text)
        return one(npm(app, home, "ci", f"--registry={own}/")[0])
    return alternate(world, [Target(server) for server in servers], load, again=0, rounds=min(3, world.options.rounds))


DISTRIBUTION = pathlib.Path("/usr/share/maven-repo")


def checksummed(folder):
    """A copy of the distribution's Maven repository with a SHA-1 beside every file, as public repositories have it."""
    for file in DISTRIBUTION.rglob("*"):
        if file.is_file():
            copy = folder / file.relative_to(DISTRIBUTION)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copy.with_name(copy.name + ".sha1").write_text(hashlib.sha1(copy.read_bytes()).hexdigest())


def newest(path):
    versions = [entry.name for entry in (DISTRIBUTION / path).iterdir() if entry.name[0].isdigit()]
    return max(versions, key=lambda version: [int(part) if part.isdigit() else -1 for part in re.split(r"[.-]", version)])


def build(folder, origin):
    """Builds a small library with an empty local repository; gives the seconds it took, and how many jars it fetched."""
    home = folder / "maven"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    plugin = lambda name: f"<plugin><artifactId>maven-{name}-plugin</artifactId><version>{newest(f'org/apache/maven/plugins/maven-{name}-plugin')}</version></plugin>"
    plugins = "".join(map(plugin, ["compiler", "deploy", "install", "jar", "resources", "source", "surefire"]))
    (home / "pom.xml").write_text(f"<project><modelVersion>4.0.0</modelVersion><groupId>a</groupId><artifactId>b</artifactId><version>1</version>"
                                  "<properties><maven.compiler.source>8</maven.compiler.source><maven.compiler.target>8</maven.compiler.target></properties>"
                                  f"<build><plugins>{plugins}</plugins></build></project>")
    (home / "settings.xml").write_text(f"<settings><localRepository>{home}/repository</localRepository><mirrors><mirror><id>m</id>"
                                       f"<mirrorOf>*</mirrorOf><url>{origin}/</url></mirror></mirrors></settings>")
    (home / "src/main/java").mkdir(parents=True)
    (home / "src/main/java/A.java").write_text("class A {}")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "MAVEN_OPTS": f"-Duser.home={home}"}
    command = ["mvn", "-B", "-ntp", "-q", "-C", "-s", home / "settings.xml", "-gs", home / "settings.xml", "install"]
    started = time.time()
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    took = time.time() - started
    if done.returncode:
        sys.exit(f"mvn against {origin} failed:\n{done.stdout[-3000:]}")
    return took, sum(1 for file in (home / "repository").rglob("*.jar") if file.is_file())


def maven(world):
    """A Maven that builds a small library, servers warm."""
    checksummed(world.folder / "tree")
    tree = world.started(FileTree(world, "tree", world.folder / "tree", pinned=False))
    servers = [world.started(FileTree(world, "nginx", world.folder / "tree")), world.packhouse(tree.origin, upstreams=["maven"])]
    servers[1].prefix = "/maven"
    jars = build(world.folder, servers[1].origin + servers[1].prefix)[1]
    world.notes.append(f"{jars} jars")
    load = lambda target, _: one(build(world.folder, target.origin + target.server.prefix)[0])
    return alternate(world, [Target(server) for server in servers], load, again=0, rounds=min(3, world.options.rounds))


# More than each can publish in a second.
PUBLISHES_PER_SECOND = {"verdaccio": 1500, "packhouse": 8000}


def publishes(world):
    """New small packages, 16 publishes at a time. An answer of packhouse means that the package is on the disk."""
    def lines(server, number):
        for n in range(PUBLISHES_PER_SECOND[server.name] * world.options.seconds):
            name = f"@bench/new-{number}-{n}"
            document = json.dumps(publish_body(name, "1.0.0", tarball(name, "1.0.0", 700)))
            yield f"{server.prefix}/{name.replace('/', '%2f')}\t{document}"
    servers = [world.verdaccio(), world.packhouse()]
    # Names that are hosted here and never asked upstream, as verdaccio's configuration says of them too.
    servers[1].command("reserve", "add", "npm", "@bench/*", "--owner", "bench")
    targets = [Target(server, headers={"Content-Type": "application/json"}) for server in servers]
    tries = {}
    def load(target, number):
        tries[target.name] = tries.get(target.name, 0) + 1
        return wrk_list(target, 16, world.options.seconds, lines(target.server, f"{number}-{tries[target.name]}"), method="PUT")
    return alternate(world, targets, load)


LAYERS, LAYER = 10, 50_000_000


class Image:
    """An image as an OCI layout, in memory: layers that do not compress, and are new in each round."""

    def __init__(self, folder):
        self.folder, self.base = folder, os.urandom(LAYER)
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, body, kind):
        digest = hashlib.sha256(body).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(body)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(body)}

    def renew(self):
        for old in (self.folder / "blobs/sha256").iterdir():
            old.unlink()
        layers = [self.blob(os.urandom(32) + self.base[32:], "layer.v1.tar+gzip") for _ in range(LAYERS)]
        config = self.blob(image_config([layer["digest"] for layer in layers]), "config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
        entry = self.blob(json.dumps(manifest).encode(), "manifest.v1+json")
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def crane(target, *words):
    """Runs crane, and gives how long it took. It signs in where the server wants it, as anybody would."""
    home = target.server.folder / "crane"
    home.mkdir(exist_ok=True)
    token = getattr(target.server, "token", None)
    auths = {f"127.0.0.1:{target.server.port}": {"username": "admin", "password": token}} if token else {}
    (home / "config.json").write_text(json.dumps({"auths": auths}))
    started = time.time()
    run(target, [CLIENTS / "bin/crane", "--insecure", *words], env={"PATH": "/usr/bin:/bin", "HOME": str(home), "DOCKER_CONFIG": str(home)}, timeout=200)
    return time.time() - started


def images(world, work):
    targets = [Target(server) for server in [world.docker_registry(), world.packhouse()]]
    rounds = min(3, world.options.rounds)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as folder:
        image = Image(pathlib.Path(folder))
        return alternate(world, targets, work(image, targets, image.folder), again=0, settle=True, rounds=rounds, before=touch)


def reference(target, tag):
    return f"127.0.0.1:{target.server.port}/bench/image:{tag}"


def image_push(world):
    """Pushes a new image from memory."""
    def work(image, targets, folder):
        made = set()
        def load(target, number):
            if number not in made:
                image.renew()
                made.add(number)
            return one(crane(target, "push", folder, reference(target, f"r{number}")))
        return load
    return images(world, work)


def oras(target, *words):
    """Runs oras, and gives how long it took. It fetches as many layers at a time as it is told."""
    token = getattr(target.server, "token", None)
    credentials = ["--from-username", "admin", "--from-password", token] if token else []
    started = time.time()
    run(target, [CLIENTS / "bin/oras", "copy", "--from-plain-http", "--concurrency", str(LAYERS), *credentials, *words], timeout=200)
    return time.time() - started


def image_pull(world):
    """Pulls an image into memory; the client checks what comes."""
    def work(image, targets, folder):
        image.renew()
        for target in targets:
            crane(target, "push", folder, reference(target, "pulled"))
        pulled = folder / "pulled"
        def load(target, _):
            shutil.rmtree(pulled, ignore_errors=True)
            return one(oras(target, reference(target, "pulled"), "--to-oci-layout", f"{pulled}:pulled"))
        return load
    return images(world, work)


ROWS = [
    Row("npm-ci", 18, "install", npm_ci, [ratio("took", "verdaccio", most=0.6), ratio("took", "nginx", most=1.05)],
        online=True, in_memory=True),
    Row("maven", 0, "build", maven),
    Row("publish", 19, "publish", publishes, [ratio("rate", "verdaccio", least=10)]),
    Row("image-push", 20, "image", image_push,
        [ratio("rate", "docker-registry", least=1.3), ratio("cpu", "docker-registry", most=0.6)], pinned=False),
    Row("image-pull", 20, "image", image_pull,
        [ratio("rate", "docker-registry", least=1.3), ratio("cpu", "docker-registry", most=0.6)], pinned=False),
]
