// Makes dist, the package, and build/test, the tests.
import { execFileSync } from "node:child_process";
import { copyFileSync, readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

process.chdir(new URL("..", import.meta.url).pathname);
rmSync("dist", { recursive: true, force: true });
rmSync("build/test", { recursive: true, force: true });

copyFileSync("../../../LICENSE", "LICENSE");

const options = { bundle: true, packages: "external", format: "esm", target: "es2022", logLevel: "warning" };

// json.js is a file of its own, loaded by those who use it.
await build({
  ...options,
  entryPoints: ["src/index.ts"],
  outdir: "dist",
  splitting: true,
  chunkNames: "[name]",
  minify: true,
  mangleProps: /^_/,
});
const tests = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
await build({ ...options, entryPoints: tests.map((name) => `test/${name}`), outdir: "build/test" });
execFileSync("node_modules/.bin/tsc", ["-p", "."], { stdio: "inherit" });
