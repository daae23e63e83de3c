// Renames, moves and reads the audit log with Octokit, and prints what it saw as JSON.
import { createRequire } from "node:module";

const { Octokit } = createRequire(process.env.MODULES)("@octokit/rest");
const log = { debug() {}, info() {}, warn() {}, error() {} };
const octokit = new Octokit({ auth: process.env.TOKEN, baseUrl: process.env.API, log });
const { repos, teams } = octokit.rest;
const tool = { org: "acme", package_type: "npm", package_name: "tool" };

const said = {};
await repos.createInOrg({ org: "acme", name: "web", private: true });
await repos.createInOrg({ org: "acme", name: "site", private: true });
await teams.create({ org: "acme", name: "core" });
said.team = (await teams.updateInOrg({ org: "acme", team_slug: "core", name: "platform" })).data.slug;

const moved = await repos.transfer({ owner: "acme", repo: "web", new_owner: "beta" });
said.moved = [moved.status, moved.data.full_name];
said.left = await repos.get({ owner: "acme", repo: "web" }).catch((error) => error.status);

// What GitHub shows on its pages and has no call for.
const access = "/orgs/{org}/packages/{package_type}/{package_name}/actions-access";
await octokit.request(`PUT ${access}/{repo}`, { ...tool, repo: "site", role: "write" });
said.workflows = (await octokit.request(`GET ${access}`, tool)).data.map((entry) => [entry.repository.name, entry.role]);
said.downloads = (await octokit.request("GET /orgs/{org}/packages/{package_type}/{package_name}/downloads", tool)).data.count;
const transfer = "POST /orgs/{org}/packages/{package_type}/{package_name}/transfer";
said.package = (await octokit.request(transfer, { ...tool, new_owner: "beta" })).data.owner.login;

const list = "GET /orgs/{org}/audit-log";
const whole = (await octokit.request(list, { org: "acme", per_page: 100 })).data;
const paged = await octokit.paginate(list, { org: "acme", per_page: 2 });
said.same = JSON.stringify(paged) === JSON.stringify(whole);
said.actions = whole.map((entry) => entry.action).reverse();
said.actors = [...new Set(whole.map((entry) => entry.actor))];
said.ips = [...new Set(whole.filter((entry) => entry.actor).map((entry) => entry.actor_ip))];
said.teams = (await octokit.request(list, { org: "acme", phrase: "action:team" })).data.map((entry) => entry.action);
console.log(JSON.stringify(said));
