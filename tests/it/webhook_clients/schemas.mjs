// What is wrong with the payload of an event, by GitHub's own schemas. It is put before the scripts that ask.
import { createRequire } from "node:module";

const schema = createRequire(process.env.SCHEMAS)("@octokit/webhooks-schemas");
const Ajv = createRequire(process.env.AJV)("ajv").default;

// The schemas refuse every member that they do not know. This one of users GitHub sends since they were written.
const extend = (value) => {
  if (value === null || typeof value !== "object") return;
  if (value.properties?.gravatar_id) value.properties.user_view_type = { type: "string" };
  Object.values(value).forEach(extend);
};
extend(schema);
const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
ajv.addSchema(schema, "github");
const problems = (event, payload) => {
  const definition = { ping: "ping$event" }[event] ?? `${event}$${payload.action}`;
  const valid = ajv.getSchema(`github#/definitions/${definition}`);
  return valid(payload) ? [] : valid.errors.map((error) => `${definition}${error.instancePath} ${error.message}`);
};

