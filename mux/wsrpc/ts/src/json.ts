// The encoding of frames in JSON (../PROTOCOL.md, section 2). It is loaded by those who use it,
// and takes what it shares with that in protobuf as arguments, so as to be a file of its own.
import { base64Decode } from "@bufbuild/protobuf/wire";
import type { Fields, Frames, Kind } from "./frame.js";

function must(ok: unknown): asserts ok {
  if (!ok) throw new Error("malformed");
}

/** Makes the encoding from the fields of a frame, and what metadata are there. */
export default function createJsonFrames(frame: Fields, metadata: Kind): Frames {
  // check tells whether a value is what it has to be, and makes bytes of base64 in place.
  function check(v: any, kind: Kind): any {
    if (typeof kind == "number") must(kind == 1 ? typeof v == "boolean" : Number.isInteger(v) && v >= 0 && v <= kind);
    else if (kind == metadata) {
      must(isObject(v));
      for (const [key, texts] of Object.entries<any>(v)) {
        must(Array.isArray(texts));
        for (const text of texts) check(text, key.endsWith("-bin") ? "bytes" : "text");
      }
    } else if (Array.isArray(kind)) {
      must(Array.isArray(v));
      for (const each of v) check(each, kind[0]);
    } else if (typeof kind == "object") {
      must(isObject(v));
      for (const name in kind) if (Object.hasOwn(v, name)) v[name] = check(v[name], kind[name]!);
    } else if (kind != "message") {
      must(typeof v == "string");
      if (kind == "bytes") return base64Decode(v);
    }
    return v;
  }

  return {
    encode: (f) =>
      // No other key or value holds these characters without a backslash among them.
      JSON.stringify({ ...f, message: f.message && 0 }).replace('"message":0', () => `"message":${new TextDecoder().decode(f.message)}`),

    decode(data) {
      must(typeof data == "string");
      const json: unknown = JSON.parse(data);
      must(isObject(json));
      const bytes = utf8(data).length;
      if (json.message === undefined) return [check(json, frame), bytes, 0];
      // JSON.parse does not tell the length of the message. It is what the rest leaves, which,
      // written without blanks, is no longer than it came.
      const rest = JSON.stringify({ ...json, message: 0 }).length - 1;
      json.message = utf8(JSON.stringify(json.message));
      return [check(json, frame), rest, bytes - rest];
    },
  };
}

const isObject = (v: unknown): v is Record<string, any> => v instanceof Object && !Array.isArray(v);

const utf8 = (text: string) => new TextEncoder().encode(text);
