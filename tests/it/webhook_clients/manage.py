"""Manages webhooks with PyGithub and prints what it saw as JSON."""

import json
import os

import github

hub = github.Github(base_url=os.environ["API"], auth=github.Auth.Token(os.environ["TOKEN"]), retry=None)
config = {"url": os.environ["RECEIVER"], "content_type": "json", "secret": "of pygithub"}
repository = hub.get_repo("acme/web")
hook = repository.create_hook("web", config, events=["package"], active=True)
said = {"made": [hook.name, hook.active, hook.events, hook.config["secret"]]}
hook.edit("web", config, events=["package", "registry_package"], active=False)
said["edited"] = [hook.active, hook.events]
hook.edit("web", config, add_events=["push"], active=True)
said["added"] = repository.get_hook(hook.id).events
hook.ping()
hook.test()
said["listed"] = [found.id == hook.id for found in repository.get_hooks()]
said["deliveries"] = [delivery.event for delivery in repository.get_hook_deliveries(hook.id)]
organization = hub.get_organization("acme")
wide = organization.create_hook("web", config, ["*"], True)
said["organization"] = [found.events for found in organization.get_hooks()]
wide.delete()
hook.delete()
said["left"] = [len(list(repository.get_hooks())), len(list(organization.get_hooks()))]
try:
    repository.create_hook("web", {"content_type": "json"})
except github.GithubException as error:
    said["refused"] = [error.status, error.data["errors"][0]["field"]]
print(json.dumps(said))
