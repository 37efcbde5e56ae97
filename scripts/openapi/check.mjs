// Holds samples, lines of {"document", "schema", "value"} in the file that the first
// argument names, against the schemas of documents in the directory of the second: each
// must be valid, and one with a value of the wrong kind in it must not be.
import { createReadStream, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import Ajv from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const [samples, directory] = process.argv.slice(2);
const documents = {};

// validator compiles a component of a document.
function validator(document, schema) {
  documents[document] ??= load(`${directory}/${document}.json`);
  const { ajv, validators } = documents[document];
  return validators[schema] ??= ajv.compile({ $ref: `document#/components/schemas/${schema}` });
}

function load(file) {
  const ajv = new Ajv({ strict: false, allErrors: true });
  addFormats(ajv);
  ajv.addFormat('uint32', { type: 'number', validate: (n) => Number.isInteger(n) && n >= 0 && n < 2 ** 32 });
  ajv.addFormat('int64', { type: 'string', validate: (s) => /^-?\d+$/.test(s) && BigInt.asIntN(64, BigInt(s)) === BigInt(s) });
  ajv.addFormat('uint64', { type: 'string', validate: (s) => /^\d+$/.test(s) && BigInt.asUintN(64, BigInt(s)) === BigInt(s) });
  ajv.addSchema(JSON.parse(readFileSync(file)), 'document');
  return { ajv, validators: {} };
}

// Messages that are JSON themselves, where nothing is wrong.
const anything = /google\.protobuf\.(Value|Struct|ListValue|Any)\b/;

let valid = 0, wrong = 0;
const seen = new Set();
for await (const line of createInterface({ input: createReadStream(samples) })) {
  const { document, schema, value } = JSON.parse(line);
  const validate = validator(document, schema);
  if (!validate(value)) fail(`${document}: ${schema}: ${JSON.stringify(validate.errors.slice(0, 3))}\n${line}`);
  valid++;
  seen.add(`${document} ${schema}`);
  if (anything.test(schema)) continue;
  if (value === null || typeof value !== 'object') {
    mustFail(validate, [[]], line);
    continue;
  }
  const { properties = {} } = documents[document].ajv.getSchema('document').schema.components.schemas[schema];
  for (const [name, property] of Object.entries(properties)) {
    if (!(name in value) || anything.test(JSON.stringify(property))) continue;
    mustFail(validate, { ...value, [name]: [[[]]] }, `${line} with a wrong ${name}`);
  }
}

function mustFail(validate, value, what) {
  if (validate(value)) fail(`valid, and should not be: ${what}`);
  wrong++;
}

function fail(text) {
  console.error(text);
  process.exit(1);
}

if (valid === 0 || wrong === 0) fail('no samples');
console.log(`${valid} samples of ${seen.size} schemas are valid, ${wrong} that were made wrong are not`);
