// One WebSocket and the calls on it (../PROTOCOL.md, section 6).
import type { Call } from "./call.js";
import { Status, fail } from "./peers.js";
import { type Frame, type Metadata, type Frames, type Received, bytesOf } from "./frame.js";
import type { Signal } from "./signal.js";

/** As much of WebSocket as is used here. Browsers, Node and the package "ws" have it. */
export interface WebSocketLike {
  binaryType: string;
  readonly bufferedAmount: number;
  onopen: ((event: any) => any) | null;
  onmessage: ((event: any) => any) | null;
  onclose: ((event: any) => any) | null;
  onerror: ((event: any) => any) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** Options of each socket, with defaults filled in. */
export interface SocketOptions {
  url: string;
  WebSocket: new (url: string, protocols: string) => WebSocketLike;
  _frames: Frames;
  windowBytes: number;
  readMaxBytes: number;
  pingIntervalMs: number;
}

/** Why a socket takes no new calls: the code of the close frame, 0 if there is none, and a text. */
export type Reason = [closeCode: number, text: string];

/** One WebSocket. */
export interface Socket {
  /** Whether another call can be opened at this moment. */
  _isFree(): boolean;
  /** Tells whether messages may be sent. If not, changed fires when that may be so. */
  _hasRoom(): boolean;
  /**
   * Begins call by frame, which has all but the number. The socket must be free. It returns the number
   * of the call and how many bytes of it may be sent.
   */
  _open(call: Call, frame: Frame, metadata: Metadata): [number: number, credit: number];
  /**
   * Sends a frame, at once. After the end it is dropped. The error is that of a message, or of what
   * is beside it, that the server would not take.
   */
  _send(frame: Frame): void;
  /** Forgets a call that is over, and cancels it at the server if it is not over there. */
  _remove(number: number): void;
  /** Ends the socket and its calls by a close code of ours, or 0 if the server does not live. */
  _close(closeCode: number, text: string): void;
}

// The status of calls by the close code of their socket, and UNAVAILABLE for others.
const statusOf: Record<number, Status> = {
  1000: Status.Canceled,
  1002: Status.Internal,
  1003: Status.Internal,
  1007: Status.Internal,
  1008: Status.ResourceExhausted,
  1009: Status.ResourceExhausted,
  1011: Status.Internal,
  1013: Status.Unavailable,
  4401: Status.Unauthenticated,
  4403: Status.PermissionDenied,
};

/** Returns the status of calls whose socket ends for this reason. */
export const errorOf = ([closeCode, text]: Reason) => fail(statusOf[closeCode] ?? Status.Unavailable, text);

/** Tells whether a socket that is opened at once may end by this close code again. */
export const mayRepeat = (closeCode: number) => closeCode > 1000 && closeCode in statusOf;

/** What is said of a server that breaks the protocol. */
export const badFrame = "bad frame";

/** What a message costs beside its length. */
export const messageCost = 16;

/** How many bytes may wait in the socket before messages have to. */
const sendBuffer = 262144;

/** What a frame may have beside its message. */
const frameRoom = 65536;

/**
 * Begins to connect. The error is that of a URL to which WebSocket does not connect at all.
 *
 * @param changed is fired when there may be room for messages or calls
 * @param onChange is called when the socket is ready, and with the reason when no new calls are taken
 */
export function createSocket(o: SocketOptions, changed: Signal, onChange: (reason?: Reason) => void): Socket {
  const ws = new o.WebSocket(o.url, "grpc-ws.v1");
  const calls = new Map<number, Call>();
  let window = 65536;
  let maxMessage = 4 << 20;
  let maxCalls = 0; // until hello
  let last = 0;
  let known = "{}"; // metadata
  let leaving: Reason | undefined;
  let ended = false;
  let poll: ReturnType<typeof setTimeout> | undefined;
  let quiet = 0; // intervals since the server did something
  let buffered = 0;

  const pinging = setInterval(() => {
    // That the server takes what is sent is a sign of life as well.
    if (ws.bufferedAmount < buffered) quiet = 0;
    buffered = ws.bufferedAmount;
    if (!maxCalls || ++quiet > 2) socket._close(0, "no answer");
    else if (quiet > 1) socket._send({ ping: Date.now() });
  }, o.pingIntervalMs || 2 ** 31 - 1);

  function leave(reason: Reason) {
    if (leaving) return;
    leaving = reason;
    onChange(reason);
    retire();
  }

  // A socket that takes no new calls ends when it has none, whether the server closes it or not.
  function retire() {
    if (leaving && !calls.size) socket._close(1000, leaving[1]);
  }

  function end(reason: Reason) {
    if (ended) return;
    ended = true;
    clearTimeout(pinging);
    clearTimeout(poll);
    leave(reason);
    for (const call of calls.values()) call._finish(errorOf(reason));
  }

  function receive(data: string | ArrayBuffer) {
    quiet = 0;
    if (poll) changed._fire(); // timers are slow in a page that nobody sees
    let received: Received;
    try {
      received = o._frames.decode(data);
    } catch {
      return socket._close(1007, badFrame);
    }
    const [f, rest, messageBytes] = received;
    const { call = 0, goAway } = f;
    const ofCall = f.credit || f.header || f.message || f.end;
    const wrong =
      rest > frameRoom || messageBytes > o.readMaxBytes + frameRoom ? 1009
      : f.open || f.halfClose || f.cancel || (ofCall && !call) || call > last ? 1002
      : 0;
    if (wrong) return socket._close(wrong, badFrame);
    // A server that does not read what it asks for is not answered.
    if (f.ping !== undefined && socket._hasRoom()) ws.send(o._frames.encode({ pong: f.ping }));
    if (f.hello && !maxCalls) {
      window = Math.min(f.hello.window || window, 2 ** 31 - 1);
      maxMessage = f.hello.maxMessage || maxMessage;
      maxCalls = f.hello.maxCalls || Infinity;
      onChange();
    }
    if (goAway) {
      leave([0, `going away: ${goAway.reason ?? ""}`]);
      for (const [number, call] of calls) {
        if (number > (goAway.lastCall ?? 0)) {
          calls.delete(number);
          call._finish(fail(Status.Unavailable, "not begun, may be made again"));
        }
      }
    }
    const c = calls.get(call);
    if (f.end) calls.delete(call);
    c?._handle(received);
  }

  const socket: Socket = {
    _isFree: () => !leaving && calls.size < maxCalls && socket._hasRoom(),

    _hasRoom() {
      if (ws.bufferedAmount < sendBuffer) return true;
      // WebSocket does not tell when it has sent.
      poll ??= setTimeout(() => {
        poll = undefined;
        changed._fire();
      }, 10);
      return false;
    },

    _open(call, frame, metadata) {
      // Said before the call, and only where it differs from what the server knows.
      const text = JSON.stringify(metadata);
      if (text != known) socket._send({ hello: { metadata } });
      known = text;
      socket._send({ call: last + 1, ...frame });
      calls.set(++last, call);
      return [last, window];
    },

    _send(f) {
      if (ended) return;
      const data = o._frames.encode(f);
      const bytes = f.message?.length ?? 0;
      if (bytes > maxMessage || bytesOf(data).length - bytes > frameRoom) {
        throw fail(Status.ResourceExhausted, "message too large, or metadata");
      }
      ws.send(data);
    },

    _remove(call) {
      if (calls.delete(call)) socket._send({ call, cancel: true });
      changed._fire();
      retire();
    },

    _close(closeCode, text) {
      // Of these codes WebSocket lets a script send 1000 alone, and else its own.
      ws.close(closeCode > 1000 ? 3000 + closeCode : 1000);
      end([closeCode, text]);
    },
  };
  ws.binaryType = "arraybuffer";
  ws.onopen = () => socket._send({ hello: { window: o.windowBytes, maxMessage: o.readMaxBytes } });
  ws.onmessage = ({ data }: { data: string | ArrayBuffer }) => ended || receive(data);
  // Node does not always say close after error (https://github.com/nodejs/undici/issues/3546).
  ws.onclose = ws.onerror = ({ code = 1006, reason = "" }: { code?: number; reason?: string }) => end([code, `${o.url} closed: ${code} ${reason}`]);
  return socket;
}
