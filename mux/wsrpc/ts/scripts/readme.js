// Makes build/readme, a file for each example in TypeScript of the READMEs, for the compiler to check.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

process.chdir(new URL("..", import.meta.url).pathname);
rmSync("build/readme", { recursive: true, force: true });
mkdirSync("build/readme", { recursive: true });
for (const [name, readme, want] of [["package", "README.md", 4], ["repository", "../../../README.md", 1]]) {
  const examples = [...readFileSync(readme, "utf8").matchAll(/^```ts\n(.*?)^```$/gms)];
  if (examples.length != want) throw new Error(`${readme}: ${examples.length} examples in TypeScript, want ${want}`);
  for (const [i, [, text]] of examples.entries()) {
    writeFileSync(`build/readme/${name}${i + 1}.ts`, text.replace('"./gen/', '"../gen/'));
  }
}
