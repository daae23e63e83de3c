"""Reads people, repositories and packages with PyGithub and prints what it saw as JSON."""

import json
import os

import github

hub = github.Github(base_url=os.environ["API"], auth=github.Auth.Token(os.environ["TOKEN"]), retry=None)
said = {"login": hub.get_user().login}
organization = hub.get_organization("acme")
said["organization"] = organization.login
repository = organization.create_repo("web", private=True)
said["repository"] = [repository.full_name, repository.private]
said["collaborators"] = [user.login for user in hub.get_repo("acme/web").get_collaborators()]
organization.create_team("core")
said["teams"] = [team.slug for team in organization.get_teams()]
try:
    hub.get_repo("acme/none")
except github.UnknownObjectException as error:
    said["missing"] = error.status
# The library has no calls for packages; its requester pages through what it is given.
_, found = hub.requester.requestJsonAndCheck("GET", "/orgs/acme/packages", parameters={"package_type": "npm"})
said["packages"] = [package["name"] for package in found]
print(json.dumps(said))
