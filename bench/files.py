"""The packages that every server of a measurement holds: the same bytes for all, made on the spot."""
import base64, gzip, hashlib, io, json, random, tarfile


def tarball(name, version, size):
    """A package whose bytes do not compress, of about `size` bytes."""
    manifest = json.dumps({"name": name, "version": version}).encode()
    filler = random.Random(f"{name}@{version}").randbytes(max(0, size - 400))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for path, body in [("package/package.json", manifest), ("package/filler.bin", filler)]:
            entry = tarfile.TarInfo(path)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def listed(name, version, body, origin):
    base = name.split("/")[-1]
    return {
        "name": name, "version": version, "description": "made for a measurement", "license": "MIT",
        "dependencies": {f"dependency-{n}": f"^{n}.0.0" for n in range(6)}, "scripts": {"test": "node test.js"},
        "repository": {"type": "git", "url": f"git+https://example.test/{base}.git"},
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
    key = f"{name}-{version}.tgz"
    data = base64.b64encode(body).decode()
    return {
        "_id": name, "name": name, "dist-tags": {"latest": version}, "versions": {version: listed(name, version, body, "http://x")},
        "_attachments": {key: {"content_type": "application/octet-stream", "data": data, "length": len(body)}},
    }


class Files:
    """What the local upstream serves and the peers copy."""

    def __init__(self, folder, origin, rounds):
        self.folder, self.rounds = folder, rounds
        for part in ["packuments", "tarballs", "static"]:
            (folder / part).mkdir(parents=True)
        self.hosted = {"tarball-20k": tarball("@bench/small", "1.0.0", 20_000), "tarball-1m": tarball("@bench/large", "1.0.0", 1 << 20)}
        for row, body in self.hosted.items():
            self.write(folder / "static" / f"{row}.tgz", body)
        # As many versions as a well-known utility library has.
        hot = tarball("hot", "1.0.0", 2000)
        self.hot = packument("hot", {f"1.{n}.0": listed("hot", f"1.{n}.0", hot, origin) for n in range(115)})
        self.write(folder / "packuments/hot.json", json.dumps(self.hot).encode())
        short = json.dumps(abbreviated(self.hot)).encode()
        self.write(folder / "static/hot.json", short)
        self.write(folder / "static/hot.json.gz", gzip.compress(short, 6))
        self.cold = {"cold-20k": self.make_cold("cold-20k", 20_000, 200, origin), "cold-16m": self.make_cold("cold-16m", 16 << 20, 3, origin)}

    def make_cold(self, name, size, per_round, origin):
        """One package with versions enough for every round and one to warm up; each version is fetched once per server."""
        versions, files = {}, []
        for n in range(per_round * (self.rounds + 1)):
            number, body = f"1.{n}.0", tarball(name, f"1.{n}.0", size)
            self.write(self.folder / "tarballs" / f"{name}-{number}.tgz", body)
            versions[number] = listed(name, number, body, origin)
            files.append((f"/{name}/-/{name}-{number}.tgz", len(body)))
        self.write(self.folder / f"packuments/{name}.json", json.dumps(packument(name, versions)).encode())
        return [files[at:at + per_round] for at in range(0, len(files), per_round)]

    @staticmethod
    def write(path, body):
        # How a file is written decides how fast it is read later: everybody's copy is written in large pieces.
        with open(path, "wb", buffering=1 << 20) as out:
            out.write(body)
