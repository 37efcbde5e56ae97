// A WebSocket without a network, whose other end is the test.
import assert from "node:assert/strict";
import { type Frame, binaryFrames, frame as fields, metadata } from "../src/frame.js";
import createJsonFrames from "../src/json.js";

const jsonFrames = createJsonFrames(fields, metadata);

/** Lets all that is under way come to where it waits. */
export const settle = async () => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
};

export class FakeWebSocket {
  static made: FakeWebSocket[] = [];

  binaryType = "";
  bufferedAmount = 0;
  onopen: ((event: unknown) => unknown) | null = null;
  onmessage: ((event: unknown) => unknown) | null = null;
  onclose: ((event: unknown) => unknown) | null = null;
  onerror: ((event: unknown) => unknown) | null = null;
  /** What the client has sent, and by which code it has closed first. */
  sent: Frame[] = [];
  closed: number | undefined;

  constructor(
    readonly url: string,
    readonly protocols: string,
  ) {
    FakeWebSocket.made.push(this);
  }

  send(data: string | Uint8Array<ArrayBuffer>) {
    this.sent.push((typeof data == "string" ? jsonFrames.decode(data) : binaryFrames.decode(data.slice().buffer))[0]);
  }

  close(code?: number) {
    this.closed ??= code;
  }

  /** Opens the socket, and says hello. */
  async open(hello: Frame["hello"] = { maxCalls: 256 }) {
    this.onopen?.({});
    await this.receive({ hello });
  }

  /** Gives the client a frame in JSON: an object, or its text. */
  async receive(frame: object | string) {
    this.onmessage?.({ data: typeof frame == "string" ? frame : JSON.stringify(frame) });
    await settle();
  }

  /** Gives the client a frame in protobuf. */
  async receiveBinary(frame: Frame) {
    this.onmessage?.({ data: (binaryFrames.encode(frame) as Uint8Array).slice().buffer });
    await settle();
  }

  /** Ends the connection from outside. */
  async end(code: number, reason = "") {
    this.onclose?.({ code, reason });
    await settle();
  }

  /** The frames of a call that the client has sent. */
  of(call: number) {
    return this.sent.filter((f) => f.call == call);
  }
}

/** The last socket that was made, of so many. */
export function last(count: number): FakeWebSocket {
  assert.equal(FakeWebSocket.made.length, count, "sockets made");
  return FakeWebSocket.made.at(-1)!;
}
