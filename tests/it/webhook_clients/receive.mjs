// Sets webhooks up with Octokit, receives with Octokit's own receiver, which checks every signature, and prints
// what it saw as JSON. Between the two somebody publishes. It comes behind schemas.mjs.
import { createServer } from "node:http";

const { Octokit } = createRequire(process.env.MODULES)("@octokit/rest");
const { Webhooks, createNodeMiddleware } = createRequire(process.env.WEBHOOKS)("@octokit/webhooks");

const log = { debug() {}, info() {}, warn() {}, error() {} };
const octokit = new Octokit({ auth: process.env.TOKEN, baseUrl: process.env.API, log });
const secret = "between octokit and us";
const said = { received: [], problems: [], errors: [] };
const webhooks = new Webhooks({ secret, log });
const waiting = [];
webhooks.onAny(({ id, name, payload }) => {
  const event = payload.action ? `${name}.${payload.action}` : name;
  said.received.push(event);
  said.problems.push(...problems(name, payload));
  waiting.filter((one) => one.event === event).forEach((one) => one.resolve({ id, payload }));
});
webhooks.onError((error) => said.errors.push(String(error)));
const next = (event) => new Promise((resolve) => waiting.push({ event, resolve }));

const server = createServer(createNodeMiddleware(webhooks, { path: "/hook" }));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/hook`;

const refused = (promise) => promise.then((answer) => [answer.status], (error) => [error.status, error.response.data.errors?.[0]?.code]);
const web = { owner: "acme", repo: "web" };
const config = { url, content_type: "json", secret };
let ping = next("ping");
const made = await octokit.rest.repos.createWebhook({ ...web, events: ["package"], config });
said.made = [made.status, made.data.type, made.data.config.secret];
const hook = { ...web, hook_id: made.data.id };
said.ping = (await ping).payload.hook_id === hook.hook_id;
said.again = await refused(octokit.rest.repos.createWebhook({ ...web, events: ["package"], config }));
said.wrong = await refused(octokit.rest.repos.createWebhook({ ...web, config: { url: "gopher://example.com" } }));
said.events = (await octokit.rest.repos.updateWebhook({ ...hook, add_events: ["registry_package"] })).data.events;
said.config = (await octokit.rest.repos.updateWebhookConfigForRepo({ ...hook, insecure_ssl: "1" })).data.insecure_ssl;
said.read = (await octokit.rest.repos.getWebhookConfigForRepo(hook)).data.secret;
ping = next("ping");
said.pinged = (await octokit.rest.repos.pingWebhook(hook)).status;
await ping;
said.tested = (await octokit.rest.repos.testPushWebhook(hook)).status;

ping = next("ping");
const organisation = { org: "acme" };
const wide = await octokit.rest.orgs.createWebhook({ ...organisation, name: "web", events: ["package"], active: true, config: { ...config, content_type: "form" } });
// Octokit's receiver takes no forms; the delivery fails, and says so.
const org_hook = { ...organisation, hook_id: wide.data.id };
await octokit.rest.orgs.updateWebhook({ ...org_hook, active: false });
said.organisation = (await octokit.rest.orgs.listWebhooks(organisation)).data.map((one) => [one.type, one.active]);
said.deleted_organisation = (await octokit.rest.orgs.deleteWebhook(org_hook)).status;

const published = [next("package.published"), next("registry_package.published"), next("package.updated"), next("registry_package.updated")];
console.error("ready");
const [first, , updated] = await Promise.all(published);
said.package = [first.payload.package.name, first.payload.package.package_version.version, first.payload.repository.full_name];
said.updated = updated.payload.package.package_version.version;
said.command = first.payload.package.package_version.installation_command;
said.metadata = first.payload.package.package_version.npm_metadata.version;

// What was answered a moment ago is noted a moment later.
let deliveries = [];
while (deliveries.length < 6) {
  deliveries = await octokit.paginate(octokit.rest.repos.listWebhookDeliveries, { ...hook, per_page: 2 });
}
said.deliveries = deliveries.map((one) => `${one.event}.${one.action}`);
said.ok = deliveries.every((one) => one.status_code === 200 && one.status === "OK");
const again = next("package.published");
const delivery = deliveries.find((one) => one.guid === first.id);
said.redelivered = (await octokit.rest.repos.redeliverWebhookDelivery({ ...hook, delivery_id: delivery.id })).status;
said.same = (await again).id === first.id;
const whole = (await octokit.rest.repos.getWebhookDelivery({ ...hook, delivery_id: delivery.id })).data;
const body = JSON.stringify(whole.request.payload);
said.signed = (await webhooks.sign(body)) === whole.request.headers["X-Hub-Signature-256"];
said.deleted = (await octokit.rest.repos.deleteWebhook(hook)).status;
said.gone = await refused(octokit.rest.repos.getWebhook(hook));
server.close();
server.closeAllConnections();
console.log(JSON.stringify(said));
