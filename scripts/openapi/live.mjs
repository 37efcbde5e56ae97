// Makes calls at the paths of a server's document and holds the answers against it.
// Usage: node live.mjs http://HOST:PORT
import Ajv from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const base = process.argv[2];
const document = await (await fetch(`${base}/openapi.json`)).json();
const ajv = addFormats(new Ajv({ strict: false }));
ajv.addSchema(document, 'document');

const pointer = (...names) => names.map((n) => encodeURIComponent(n.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/');
const lines = (text) => text.trim().split('\n').map((line) => JSON.parse(line));
const events = (text) => [...text.matchAll(/^id: \d+\ndata: (.*)$/gm)].map((m) => JSON.parse(m[1]));
const json = { headers: { 'Content-Type': 'application/json' } };

// method and path in the document, what to ask, the status wanted, and for a stream its
// media type and how to take it apart.
const calls = [
  ['get', '/v1/hello/{name}', '/v1/hello/ada', {}, 200],
  ['post', '/v1/hello', '/v1/hello', { ...json, body: '{"name":"ada"}' }, 200],
  ['post', '/v1/hello', '/v1/hello', { ...json, body: '{"name":1}' }, 400],
  ['get', '/v1/echo/{message}:expand', '/v1/echo/hi:expand?count=2', {}, 200, 'application/json', (text) => [JSON.parse(text)]],
  ['get', '/v1/echo/{message}:expand', '/v1/echo/hi:expand?count=2', {}, 200, 'application/x-ndjson', lines],
  ['get', '/v1/echo/{message}:expand', '/v1/echo/hi:expand?count=2', {}, 200, 'text/event-stream', events],
  ['get', '/v1/echo/{message}:expand', '/v1/echo/hi:expand?count=x', {}, 400],
];
for (const [method, path, url, init, status, media = 'application/json', parts = (text) => [JSON.parse(text)]] of calls) {
  const res = await fetch(base + url, { ...init, method, headers: { ...init.headers, Accept: media } });
  const text = await res.text();
  const what = `${method} ${url} as ${media} gives ${res.status} ${text}`;
  if (res.status !== status) fail(`${what}, want ${status}`);
  const responses = document.paths[path]?.[method]?.responses;
  const at = status === 200 ? pointer('paths', path, method, 'responses', '200') : responses?.default.$ref.slice(2);
  const validate = ajv.compile({ $ref: `document#/${at}/${pointer('content', status === 200 ? media : 'application/json', 'schema')}` });
  const values = parts(text);
  if (values.length === 0) fail(`${what}, which is nothing`);
  for (const value of values) {
    if (!validate(value)) fail(`${what}: ${JSON.stringify(validate.errors)}`);
    if (validate([[]]) || validate({ message: 1, result: 1 })) fail(`${path}: anything is valid`);
  }
}
console.log(`${calls.length} answers are as the document says`);

function fail(text) {
  console.error(text);
  process.exit(1);
}
