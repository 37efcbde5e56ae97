// The vectors that every client and server of the protocol is tested with.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Fields, type Frame, type Kind, binaryFrames, frame as fields, metadata } from "../src/frame.js";
import createJsonFrames from "../src/json.js";
import { unhex, vectors } from "./vectors.js";

const jsonFrames = createJsonFrames(fields, metadata);

// plain is what a frame says, without the message, whose encoding differs.
function plain(value: unknown, kind: Kind = fields): unknown {
  if (kind == "message") return "a message";
  if (kind == 1) return Boolean(value) || undefined;
  if (kind == metadata) {
    const pairs = Object.entries(value as Record<string, string[]>).filter(([, values]) => values.length > 0);
    const unpadded = pairs.map(([key, values]) => [key, key.endsWith("-bin") ? values.map((v) => v.replace(/=+$/, "")) : values]);
    return unpadded.length > 0 ? Object.fromEntries(unpadded) : undefined;
  }
  if (kind == "bytes") return Buffer.from(value as Uint8Array).toString("hex");
  if (Array.isArray(kind)) return (value as unknown[]).map((v) => plain(v, kind[0]));
  if (typeof kind != "object") return value;
  const said: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(kind as Fields)) {
    const v = (value as Record<string, unknown>)[name];
    const p = v === undefined ? v : plain(v, field);
    if (p !== undefined) said[name] = p;
  }
  return said;
}

test("a frame says the same in both encodings", () => {
  for (const { name, text, binary } of vectors("frames.json")) {
    const [json, jsonRest, jsonBytes] = jsonFrames.decode(text!);
    const [protobuf, rest, bytes] = binaryFrames.decode(unhex(binary!));
    assert.deepEqual(plain(json), plain(protobuf), name);
    assert.equal(jsonRest + jsonBytes, Buffer.byteLength(text!), `${name}: bytes of JSON`);
    assert.equal(rest + bytes, binary!.length / 2, `${name}: bytes of protobuf`);
  }
});

test("a frame of a client is written as the vectors have it", () => {
  let written = 0;
  for (const v of vectors("frames.json")) {
    const [json] = jsonFrames.decode(v.text!);
    if (!v.written || json.header || json.end || json.goAway || json.hello?.window) continue;
    written++;
    assert.equal(jsonFrames.encode(json), v.text, v.name);
    const [protobuf] = binaryFrames.decode(unhex(v.binary!));
    const again = Buffer.from(binaryFrames.encode(protobuf) as Uint8Array).toString("hex");
    assert.deepEqual(plain(binaryFrames.decode(unhex(again))[0]), plain(protobuf), v.name);
    // An empty value is written out, which a receiver has to read as well.
    if (v.name != "open with everything") assert.equal(again, v.binary, v.name);
  }
  assert.ok(written > 8, `${written} frames of a client`);
});

// isRefusal tells what a decoder throws on purpose from what a mistake in it would.
const isRefusal = (e: unknown) =>
  e === false || // of must
  e instanceof SyntaxError || // of JSON.parse
  e instanceof RangeError || // of BinaryReader, beyond the end
  (e instanceof Error && e.name == "Error") || // of the encoding of JSON, base64 and BinaryReader
  (e instanceof TypeError && (e as NodeJS.ErrnoException).code == "ERR_ENCODING_INVALID_ENCODED_DATA"); // of TextDecoder

test("what is no frame is refused", () => {
  for (const { name, text, binary } of vectors("malformed.json")) {
    assert.throws(() => (text === undefined ? binaryFrames.decode(unhex(binary!)) : jsonFrames.decode(text)), isRefusal, name);
  }
});

test("the length of a message in JSON is that of its bytes as they came", () => {
  const size = (text: string) => jsonFrames.decode(text)[2];
  assert.equal(size('{"call":1,"message":{"a":"ü"}}'), Buffer.byteLength('{"a":"ü"}'));
  assert.equal(size('{"call":1,"message":"\\"message\\":0","end":{}}'), '"\\"message\\":0"'.length);
  // Blanks may count for it, and must not make it shorter.
  assert.ok(size('{ "call": 1, "message": { "a": 1 } }') >= '{ "a": 1 }'.length);
});

test("metadata may have the names of what all objects have", () => {
  const header = { metadata: { constructor: ["a"], "x-bin": ["AAE="] } };
  const [f] = binaryFrames.decode((binaryFrames.encode({ call: 1, header }) as Uint8Array<ArrayBuffer>).slice().buffer);
  assert.deepEqual({ ...f.header?.metadata }, header.metadata);
});

test("text that looks like the place of the message is left alone", () => {
  const message = Buffer.from('{"message":0}');
  const f: Frame = { call: 1, open: { method: '"message":0', metadata: { message: ["0", '"message":0'] } }, message };
  const [back] = jsonFrames.decode(jsonFrames.encode(f) as string);
  assert.deepEqual({ ...back, message: String(Buffer.from(back.message!)) }, { ...f, message: String(message) });
});
