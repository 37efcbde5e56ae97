// What is in the package, and how large it is.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const root = new URL("../../", import.meta.url).pathname;
const size = (name: string) => gzipSync(readFileSync(`${root}dist/${name}`), { level: 9 }).length;

test("the client has less than 4 KiB, and JSON less than 1 KiB more for those who use it", (t) => {
  t.diagnostic(`index.js has ${size("index.js")} bytes, json.js ${size("json.js")}, each minified and gzipped`);
  assert.ok(size("index.js") < 4096, `index.js has ${size("index.js")} bytes`);
  assert.ok(size("json.js") < 1024, `json.js has ${size("json.js")} bytes`);
});

test("the package has what users need and no more", () => {
  const [pack] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: root, encoding: "utf8" })) as [
    { files: { path: string }[] },
  ];
  const types = ["call", "channel", "composite", "frame", "index", "json", "peers", "signal", "socket", "transport"];
  assert.deepEqual(
    pack.files.map(({ path }) => path).sort(),
    ["LICENSE", "README.md", "dist/index.js", "dist/json.js", "package.json", ...types.map((name) => `dist/${name}.d.ts`)].sort(),
  );
});

test("it has no dependency but its peers", () => {
  const manifest = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as Record<string, object | undefined>;
  assert.equal(manifest["dependencies"], undefined);
  const imports = new Set([...readFileSync(`${root}dist/index.js`, "utf8").matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map((m) => m[1]));
  assert.deepEqual([...imports].sort(), ["./json.js", "@bufbuild/protobuf/wire", "@connectrpc/connect", "@connectrpc/connect/protocol"]);
});
