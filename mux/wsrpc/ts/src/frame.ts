// The frames of grpc-ws.v1, and their encoding in protobuf (../PROTOCOL.md, section 2).
import { BinaryReader, BinaryWriter, base64Decode, base64Encode } from "@bufbuild/protobuf/wire";

export { base64Decode, base64Encode };

/** Metadata: values by key, in base64 where the key ends in "-bin". */
export type Metadata = Record<string, string[]>;

/** What a frame says. What is absent is not said. */
export interface Frame {
  call?: number;
  open?: { method: string; metadata?: Metadata; timeoutMs?: number | undefined };
  /** In the encoding of the frame, text in UTF-8. */
  message?: Uint8Array | undefined;
  halfClose?: boolean;
  header?: { metadata?: Metadata };
  end?: {
    code?: number;
    message?: string;
    details?: { type?: string; value?: Uint8Array }[];
    trailer?: Metadata;
  };
  credit?: number;
  cancel?: boolean;
  hello?: { window?: number; maxMessage?: number; maxCalls?: number; metadata?: Metadata };
  ping?: number;
  pong?: number;
  goAway?: { lastCall?: number; reason?: string };
}

/** A frame that has come, how many bytes it has without its message, and how many that had. */
export type Received = [frame: Frame, rest: number, messageBytes: number];

/** The data of a WebSocket message. */
export type Data = string | Uint8Array<ArrayBuffer>;

/** An encoding of frames. */
export interface Frames {
  /** Returns a frame as the data of a WebSocket message. */
  encode(f: Frame): Data;
  /** Returns what the data of a WebSocket message say. An error means that they are no frame. */
  decode(data: string | ArrayBuffer): Received;
}

/** What a field holds: an integer up to a number, one of these, a message, or a list of messages. */
export type Kind = number | "text" | "bytes" | "message" | Fields | [Fields];

/** The fields of a message in the order of their numbers, which begin with 1 and leave none out. */
export interface Fields {
  [name: string]: Kind;
}

const uint32 = 2 ** 32 - 1;
const uint64 = 2 ** 64;
const bool = 1;

/** What metadata are in protobuf. In a {@link Frame} they are as in JSON. */
export const metadata: [Fields] = [{ key: "text", value: "bytes" }];

/** The fields of a frame. */
export const frame: Fields = {
  call: uint32,
  open: { method: "text", metadata, timeoutMs: uint64 },
  message: "message",
  halfClose: bool,
  header: { metadata },
  end: { code: uint32, message: "text", details: [{ type: "text", value: "bytes" }], trailer: metadata },
  credit: uint32,
  cancel: bool,
  hello: { window: uint32, maxMessage: uint32, maxCalls: uint32, metadata },
  ping: uint64,
  pong: uint64,
  goAway: { lastCall: uint32, reason: "text" },
};

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Returns data as bytes, of text in UTF-8. */
export const bytesOf = (data: Data) => (typeof data == "string" ? encoder.encode(data) : data);

/** Tells whether values of this key are bytes, which are written in base64. */
export const isBinary = (key: string) => key.endsWith("-bin");

// must throws unless ok. Nobody looks at what.
function must(ok: unknown): asserts ok {
  if (!ok) throw ok;
}

function write(w: BinaryWriter, values: any, fields: Fields): BinaryWriter {
  Object.entries(fields).forEach(([name, kind], i) => {
    const value = values[name];
    if (value === undefined) return;
    const list =
      kind == metadata
        ? Object.entries<string[]>(value).flatMap(([key, texts]) => texts.map((text) => ({ key, value: isBinary(key) ? base64Decode(text) : bytesOf(text) })))
        : [value];
    for (const v of list) {
      w.tag(i + 1, typeof kind == "number" ? 0 : 2);
      if (typeof kind == "number") w.uint64(+v);
      else if (typeof kind == "object") write(w.fork(), v, kind == metadata ? metadata[0] : (kind as Fields)).join();
      else w.bytes(kind == "text" ? bytesOf(v) : v);
    }
  });
  return w;
}

function read(bytes: Uint8Array, fields: Fields, into: any = {}): any {
  for (const r = new BinaryReader(bytes); r.pos < r.len; ) {
    const [number, wire] = r.tag();
    const [name = "", kind = ""] = Object.entries(fields)[number - 1] ?? [];
    if (!name || wire != (typeof kind == "number" ? 0 : 2)) {
      r.skip(wire, number); // also a known number of another type
    } else if (!wire) {
      must((into[name] = Number(r.uint64())) <= (kind as number));
    } else {
      const v = r.bytes();
      if (kind == metadata) {
        const { key = "", value = new Uint8Array() } = read(v, metadata[0]);
        ((into[name] ??= { __proto__: null })[key] ??= []).push(isBinary(key) ? base64Encode(value) : decoder.decode(value));
      } else if (Array.isArray(kind)) {
        (into[name] ??= []).push(read(v, kind[0]));
      } else {
        // Protobuf merges messages.
        into[name] = typeof kind == "object" ? read(v, kind, into[name]) : kind == "text" ? decoder.decode(v) : v;
      }
    }
  }
  return into;
}

/** The encoding in protobuf. */
export const binaryFrames: Frames = {
  encode: (f) => write(new BinaryWriter(), f, frame).finish() as Data,

  decode(data) {
    must(typeof data != "string");
    const f: Frame = read(new Uint8Array(data), frame);
    const bytes = f.message?.length ?? 0;
    return [f, data.byteLength - bytes, bytes];
  },
};
