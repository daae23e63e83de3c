// Keeps the three newest versions of a package and deletes the others, a page at a time,
// through the routes of users although an organisation owns it. Prints what it saw as JSON.
import { createRequire } from "node:module";

const { Octokit } = createRequire(process.env.MODULES)("@octokit/rest");
const octokit = new Octokit({ auth: process.env.TOKEN, baseUrl: process.env.API, log: { debug() {}, info() {}, warn() {}, error() {} } });
const { packages } = octokit.rest;
const tool = { username: "acme", package_type: "npm", package_name: "tool" };

const all = async () => {
  const found = [];
  for (let page = 1; ; page++) {
    const { data } = await packages.getAllPackageVersionsForPackageOwnedByUser({ ...tool, per_page: 5, page });
    found.push(...data.map(({ id, name, created_at }) => ({ id, name, created_at })));
    if (data.length === 0) return found;
  }
};
const age = (one, two) => (one.created_at === two.created_at ? one.id - two.id : one.created_at < two.created_at ? -1 : 1);

const versions = (await all()).sort(age);
const old = versions.slice(0, -3);
const said = { before: versions.length, deleted: 0 };
for (const version of old) {
  const answer = await packages.deletePackageVersionForUser({ ...tool, package_version_id: version.id });
  if (answer.status === 204) said.deleted += 1;
}
const left = await all();
said.after = left.map((version) => version.name);
for (const version of left.slice(1)) await packages.deletePackageVersionForUser({ ...tool, package_version_id: version.id });
said.last = await packages
  .deletePackageVersionForUser({ ...tool, package_version_id: left[0].id })
  .catch((error) => [error.status, error.response.data.message]);
console.log(JSON.stringify(said));
