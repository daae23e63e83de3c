// Lists, deletes and restores packages with Octokit and prints what it saw as JSON.
import { createRequire } from "node:module";

const { Octokit } = createRequire(process.env.MODULES)("@octokit/rest");
const log = { debug() {}, info() {}, warn() {}, error() {} };
const octokit = new Octokit({ auth: process.env.TOKEN, baseUrl: process.env.API, log });
const status = (promise) => promise.then((answer) => answer.status, (error) => error.status);

const said = {};
const acme = { org: "acme", package_type: "npm" };
const listed = await octokit.paginate(octokit.rest.packages.listPackagesForOrganization, { ...acme, per_page: 10 });
said.listed = listed.length;
said.pages = [];
for await (const page of octokit.paginate.iterator(octokit.rest.packages.listPackagesForOrganization, { ...acme, per_page: 10 })) {
  said.pages.push(page.data.length);
}

const tool = { ...acme, package_name: "tool" };
const found = await octokit.rest.packages.getPackageForOrganization({ ...acme, package_name: "@acme/tool" });
if (found.data.version_count !== 3) throw new Error(`version_count is ${found.data.version_count}`);
const versionsOf = async (more) => (await octokit.rest.packages.getAllPackageVersionsForPackageOwnedByOrg({ ...tool, ...more })).data;
const versions = await versionsOf();
said.versions = versions.map((version) => version.name);
const newest = { ...tool, package_version_id: versions[0].id };
await octokit.rest.packages.deletePackageVersionForOrg(newest);
said.left = (await versionsOf({ state: "active" })).map((version) => version.name);
said.deleted = (await versionsOf({ state: "deleted" })).map((version) => version.name);
await octokit.rest.packages.restorePackageVersionForOrg(newest);
said.restored = (await versionsOf()).length;

await octokit.rest.packages.deletePackageForOrg(tool);
said.gone = await status(octokit.rest.packages.getPackageForOrganization(tool));
await octokit.rest.packages.restorePackageForOrg(tool);
said.back = (await octokit.rest.packages.getPackageForUser({ username: "acme", package_type: "npm", package_name: "tool" })).data.name;

said.missing_type = await status(octokit.request("GET /orgs/{org}/packages", { org: "acme" }));
const stranger = new Octokit({ auth: "pkh_nonsense", baseUrl: process.env.API, log });
said.bad_credentials = await stranger.rest.users.getAuthenticated().catch((error) => [error.status, error.response.data.message]);

said.me = (await octokit.rest.users.getAuthenticated()).data.login;
said.repository = (await octokit.rest.repos.createInOrg({ org: "acme", name: "web", private: true })).data.full_name;
said.taken = await octokit.rest.repos
  .createInOrg({ org: "acme", name: "web" })
  .catch((error) => [error.status, error.response.data.errors[0].code]);
await octokit.rest.teams.create({ org: "acme", name: "core" });
said.teams = (await octokit.paginate(octokit.rest.teams.list, { org: "acme" })).map((team) => team.slug);
console.log(JSON.stringify(said));
