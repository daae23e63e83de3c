# What receives GitHub's webhooks: Octokit's receiver, and the schemas of what it expects.
webhooks_version=14.2.0
schemas_version=7.6.1
ajv_version=8.20.0

install() {
  apt_install npm nodejs npm ca-certificates
  from_npm octokit-webhooks "@octokit/webhooks@$webhooks_version"
  from_npm webhooks-schemas "@octokit/webhooks-schemas@$schemas_version"
  from_npm ajv "ajv@$ajv_version"
}
