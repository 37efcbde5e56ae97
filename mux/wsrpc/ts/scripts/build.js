// Makes dist, the package.
import { execFileSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { build } from "esbuild";

process.chdir(new URL("..", import.meta.url).pathname);
rmSync("dist", { recursive: true, force: true });
copyFileSync("../../../LICENSE", "LICENSE");

// json.js is a file of its own, loaded by those who use it.
await build({
  bundle: true,
  packages: "external",
  format: "esm",
  target: "es2022",
  logLevel: "warning",
  entryPoints: ["src/index.ts"],
  outdir: "dist",
  splitting: true,
  chunkNames: "[name]",
  minify: true,
  mangleProps: /^_/,
});
execFileSync("node_modules/.bin/tsc", ["-p", "."], { stdio: "inherit" });
