"""Renames a team, gives a repository away and reads the audit log with PyGithub, and prints what it saw as JSON."""

import json
import os

import github

hub = github.Github(base_url=os.environ["API"], auth=github.Auth.Token(os.environ["TOKEN"]), retry=None)
organization = hub.get_organization("acme")
team = organization.create_team("core")
team.edit("platform")
said = {"team": [team.name, team.slug]}
repository = organization.create_repo("web", private=True)
said["transferred"] = repository.transfer_ownership("beta")
said["full_name"] = hub.get_repo("beta/web").full_name
# The library has no call for the log; its paginated lists follow what the server says is next.
_, entries = hub.requester.requestJsonAndCheck("GET", "/orgs/acme/audit-log", parameters={"phrase": "action:repo", "order": "asc"})
said["actions"] = [entry["action"] for entry in entries]
print(json.dumps(said))
