// Generates build/gen, the TypeScript of ../../../proto, as protoc would have protoc-gen-es do it, or the
// plugin that is given. The protos are compiled by scripts/tools/gen of the repository, which needs Go
// only.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { CodeGeneratorRequestSchema, CodeGeneratorResponseSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const [plugin = "node_modules/.bin/protoc-gen-es"] = process.argv.slice(2);
process.chdir(new URL("..", import.meta.url).pathname);
mkdirSync("build", { recursive: true });
const root = "../../..";
const set = `${process.cwd()}/build/descriptors.binpb`;
execFileSync("go", ["-C", `${root}/scripts/tools`, "run", "./gen", "-descriptor_set_out", set, "../../proto"], { stdio: "inherit" });
const protoFile = fromBinary(FileDescriptorSetSchema, readFileSync(set)).file;
const request = create(CodeGeneratorRequestSchema, {
  parameter: "target=ts,import_extension=js",
  protoFile,
  fileToGenerate: protoFile.map((file) => file.name).filter((name) => !name.startsWith("google/protobuf/")), // which the library has
});
const output = execFileSync(plugin, { input: toBinary(CodeGeneratorRequestSchema, request) });
const { file, error } = fromBinary(CodeGeneratorResponseSchema, output);
if (error) throw new Error(error);
for (const { name, content } of file) {
  mkdirSync(dirname(`build/gen/${name}`), { recursive: true });
  writeFileSync(`build/gen/${name}`, content);
}
