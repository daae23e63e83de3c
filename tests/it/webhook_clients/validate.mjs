// Checks the payloads of a file, a list of events and bodies, and prints what is wrong. It comes behind schemas.mjs.
import { readFileSync } from "node:fs";

const told = JSON.parse(readFileSync(process.env.PAYLOADS, "utf8"));
const wrong = told.flatMap(([event, body]) => problems(event, body).map((text) => `${body[event].package_type} ${text}`));
console.log(JSON.stringify({ checked: told.length, wrong }));
