# What speaks GitHub's API: Octokit, PyGithub, and GitHub's command.
octokit_version=22.0.1
pygithub_version=2.10.0

install() {
  # GitHub's command comes in whatever version the distribution has.
  apt_install gh gh
  from_npm octokit "@octokit/rest@$octokit_version"
  python3 -c 'import ensurepip' 2>/dev/null || apt_install no-ensurepip python3-venv
  from_pip pygithub "PyGithub==$pygithub_version"
}
