"""What every server of a measurement holds: the same bytes for all, made on the spot."""
import base64, gzip, hashlib, io, json, os, random, tarfile


def manifest(name, version):
    base = name.split("/")[-1]
    return {
        "name": name, "version": version, "description": "made for a measurement", "license": "MIT",
        "dependencies": {f"dependency-{n}": f"^{n}.0.0" for n in range(6)}, "scripts": {"test": "node test.js"},
        "repository": {"type": "git", "url": f"git+https://example.test/{base}.git"},
    }


def tarball(name, version, size):
    """A package whose bytes do not compress, of about `size` bytes."""
    filler = random.Random(f"{name}@{version}").randbytes(max(0, size - 400))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for path, body in [("package/package.json", json.dumps(manifest(name, version)).encode()), ("package/filler.bin", filler)]:
            entry = tarfile.TarInfo(path)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def listed(name, version, body, origin):
    base = name.split("/")[-1]
    return {
        **manifest(name, version),
        "_id": f"{name}@{version}", "_nodeVersion": "22.0.0", "_npmVersion": "10.0.0",
        "dist": {
            "tarball": f"{origin}/{name}/-/{base}-{version}.tgz", "shasum": hashlib.sha1(body).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(body).digest()).decode(), "fileCount": 2, "unpackedSize": len(body),
        },
    }


def packument(name, versions):
    time_of = {version: f"2024-01-{n % 28 + 1:02}T00:00:00.000Z" for n, version in enumerate(versions)}
    return {
        "_id": name, "_rev": "1-a", "name": name, "description": "made for a measurement", "dist-tags": {"latest": list(versions)[-1]},
        "versions": versions, "time": {"created": "2024-01-01T00:00:00.000Z", "modified": "2024-02-01T00:00:00.000Z", **time_of},
        "maintainers": [{"name": "somebody", "email": "somebody@example.test"}], "readme": "# made for a measurement\n" * 200,
    }


def abbreviated(document):
    keep = {"name", "version", "dist", "dependencies"}
    versions = {number: {key: value for key, value in one.items() if key in keep} for number, one in document["versions"].items()}
    return {"name": document["name"], "modified": document["time"]["modified"], "dist-tags": document["dist-tags"], "versions": versions}


def publish_body(name, version, body):
    """What `npm publish` sends."""
    key = f"{name}-{version}.tgz"
    data = base64.b64encode(body).decode()
    return {
        "_id": name, "name": name, "dist-tags": {"latest": version},
        "versions": {version: listed(name, version, body, "http://x")},
        "_attachments": {key: {"content_type": "application/octet-stream", "data": data, "length": len(body)}},
    }


def large_packument(name, origin, versions=3500):
    """A document of about 10 MB: as many versions as a well-known compiler has, each with digests of its own."""
    document = packument(name, {f"{n // 100}.{n % 100}.0": listed(name, f"{n // 100}.{n % 100}.0", b"%d" % n, origin) for n in range(versions)})
    for n, version in enumerate(document["versions"].values()):
        version["devDependencies"] = {f"@tools/development-dependency-{m}": f"^{m}.{n % 40}.0" for m in range(24)}
        version["_npmOperationalInternal"] = {"host": "somewhere", "tmp": hashlib.sha256(b"%d" % n).hexdigest() * 10}
    return document


def image_config(layers):
    rootfs = {"type": "layers", "diff_ids": layers}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()


class Files:
    """The folder that the local upstream serves, with `static/` for the peer that serves plain files."""

    def __init__(self, folder, origin):
        self.folder, self.origin = folder, origin
        for part in ["packuments", "tarballs", "static", "v2/bench/image/blobs"]:
            (folder / part).mkdir(parents=True, exist_ok=True)

    def static(self, name, body):
        """A file for the peer of plain files; gives its path there."""
        self.write(self.folder / "static" / name, body)
        return f"/{name}"

    def document(self, document):
        self.write(self.folder / "packuments" / f"{document['name']}.json", json.dumps(document).encode())

    def popular(self):
        """A package of as many versions as a well-known utility library has."""
        body = tarball("hot", "1.0.0", 2000)
        hot = packument("hot", {f"1.{n}.0": listed("hot", f"1.{n}.0", body, self.origin) for n in range(115)})
        self.document(hot)
        return hot

    def huge(self):
        document = large_packument("huge", self.origin)
        self.document(document)
        return document

    def cold_package(self, name, size, per_batch, batches):
        """One package, each version of which is fetched once by each server, in batches."""
        versions, files = {}, []
        for n in range(per_batch * batches):
            number, body = f"1.{n}.0", tarball(name, f"1.{n}.0", size)
            self.write(self.folder / "tarballs" / f"{name}-{number}.tgz", body)
            versions[number] = listed(name, number, body, self.origin)
            files.append((f"/{name}/-/{name}-{number}.tgz", len(body)))
        self.document(packument(name, versions))
        return [files[at:at + per_batch] for at in range(0, len(files), per_batch)]

    def cold_layers(self, size, count):
        """Layers of the upstream, as pairs of path and size."""
        made = []
        for _ in range(count):
            body = os.urandom(size)
            path = f"v2/bench/image/blobs/sha256:{hashlib.sha256(body).hexdigest()}"
            self.write(self.folder / path, body)
            made.append(("/" + path, size))
        return made

    @staticmethod
    def write(path, body):
        # How a file is written decides how fast it is read later: everybody's copy is written in large pieces.
        with open(path, "wb", buffering=0) as out:
            view = memoryview(body)
            for at in range(0, len(view), 1 << 20):
                out.write(view[at:at + (1 << 20)])
