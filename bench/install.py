"""Installs what a run needs and does not find: the peers, the loads, the package clients."""
import json, os, pathlib, platform, shutil, subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLIENTS = pathlib.Path(os.environ.get("PACKHOUSE_CLIENTS_DIR", ROOT / "tests/.clients"))
VERDACCIO, NODE24, NORA, OHA = "6.10.4", "24.21.0", "nora-registry@1.4.3", "oha@1.16.0"
MACHINE = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
NODE = CLIENTS / f"node24/node_modules/node-linux-{MACHINE}/bin/node"
DOCKER_REGISTRY = CLIENTS / "registry/usr/bin/docker-registry"
NORA_PROGRAM = CLIENTS / "nora/bin/nora"
OHA_PROGRAM = CLIENTS / "oha/bin/oha"
# The Debian package of each tool whose name is not the tool's.
PACKAGES = {"taskset": "util-linux", "h2load": "nghttp2-client"}


def say(text):
    print(text, flush=True)


def quietly(command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **more)


def install():
    """Everything but the optional peer. `tests/run --install` brings docker-registry, skopeo, npm and Maven."""
    missing = [tool for tool in ["nginx", "wrk", "h2load", "curl", "openssl", "taskset"] if not shutil.which(tool)]
    if missing:
        say(f"installing {' '.join(missing)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quietly(["apt-get", "-qq", "update"], env=environment)
        names = [PACKAGES.get(tool, tool) for tool in missing]
        quietly(["apt-get", "-qq", "-y", "--no-install-recommends", "install", *names], env=environment)
    quietly([ROOT / "tests/run", "--install"])
    from_npm("verdaccio", {"dependencies": {"verdaccio": VERDACCIO}, "overrides": {"node-fetch": "2.7.0"}})
    from_npm("node24", {"dependencies": {f"node-linux-{MACHINE}": NODE24}})


def install_nora():
    """The optional peer, from source, which takes minutes. Says so where it cannot be had; its figures are then missing."""
    if NORA_PROGRAM.exists():
        return
    say(f"installing {NORA}")
    done = subprocess.run(["cargo", "install", "--quiet", "--root", NORA_PROGRAM.parent.parent, NORA])
    if done.returncode:
        say("NORA cannot be installed here: its figures are missing")


def install_oha():
    """The load at a fixed rate, from source, which takes minutes."""
    if not OHA_PROGRAM.exists():
        say(f"installing {OHA}")
        fast_to_build = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16"}
        quietly(["cargo", "install", "--quiet", "--locked", "--root", OHA_PROGRAM.parent.parent, OHA], env={**os.environ, **fast_to_build})


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
