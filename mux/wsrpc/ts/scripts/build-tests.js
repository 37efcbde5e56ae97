// Makes build/test, the tests, which need what generate.js makes.
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

process.chdir(new URL("..", import.meta.url).pathname);
rmSync("build/test", { recursive: true, force: true });
const tests = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
await build({
  bundle: true,
  packages: "external",
  format: "esm",
  target: "es2022",
  logLevel: "warning",
  entryPoints: tests.map((name) => `test/${name}`),
  outdir: "build/test",
});
