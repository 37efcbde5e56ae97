// Makes the tests, which need what generate.js makes, in build/test or the directory given.
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const [outdir = "build/test"] = process.argv.slice(2);
process.chdir(new URL("..", import.meta.url).pathname);
rmSync(outdir, { recursive: true, force: true });
const tests = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
await build({
  bundle: true,
  packages: "external",
  format: "esm",
  target: "es2022",
  logLevel: "warning",
  entryPoints: tests.map((name) => `test/${name}`),
  outdir,
});
