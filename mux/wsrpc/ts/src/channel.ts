// Which socket calls go to, and when another is made (../PROTOCOL.md, section 6).
import { type Signal, createSignal } from "./signal.js";
import { type Reason, type Socket, type SocketOptions, createSocket, errorOf, mayRepeat } from "./socket.js";

/**
 * What a transport's shared socket does: `idle`, there is none, and the next call makes one;
 * `connecting`; `ready`, calls can be made; `waiting`, until the next attempt to connect;
 * `closed`, for good.
 */
export type ConnectionState = "idle" | "connecting" | "ready" | "waiting" | "closed";

/** Options of a channel, with defaults filled in. */
export interface ChannelOptions extends SocketOptions {
  reconnectBaseMs: number;
  reconnectMaxMs: number;
  /** If true, the socket is for one call: it is not made again. */
  socketPerCall?: boolean;
}

/** A socket that is made again when it ends. */
export interface Channel {
  /** Fires when there is news for calls that wait to be opened, or to send. */
  readonly _changed: Signal;
  _state(): ConnectionState;
  /**
   * Returns what gives a call the socket to be opened on, or undefined while there is none that is free.
   * The error is that of an attempt to connect that has failed meanwhile.
   */
  _picker(): () => Socket | undefined;
  /** Takes no more calls, for good, and ends the calls and the socket with CANCELED. */
  _close(): void;
}

/**
 * Makes a channel, without a socket.
 *
 * @param onState is called with each new state, and why, if that is not of the caller's making
 */
export function createChannel(o: ChannelOptions, onState?: (state: ConnectionState, reason?: string) => unknown): Channel {
  const changed = createSignal();
  let state: ConnectionState = "idle";
  let current: Socket | undefined;
  let lost: Reason;
  let failures = 0; // of attempts to connect, in a row
  let failed = 0; // and in all
  let timer: ReturnType<typeof setTimeout> | undefined;

  function setState(next: ConnectionState, reason?: string) {
    if (state == next || state == "closed") return;
    state = next;
    // Later, so that it can do what it likes; and what is wrong with it is of no call.
    if (onState) Promise.resolve().then(() => onState(next, reason)).catch(console.error);
  }

  function connect() {
    // WebSocket throws where the page may not connect there, and so at the first call, which
    // fails by it.
    const born = Date.now();
    const socket = createSocket(o, changed, (reason) => {
      if (socket == current) {
        if (!reason) setState("ready");
        else hasLeft(reason, Date.now() - born);
      }
      changed._fire();
    });
    current = socket;
    setState("connecting");
  }

  // hasLeft makes the next socket, after a time that grows with the failures and differs by chance.
  function hasLeft(reason: Reason, age: number) {
    current = undefined;
    lost = reason;
    if (state != "ready") {
      failed++;
      age = 0;
    }
    failures = age < o.reconnectBaseMs ? failures + 1 : +mayRepeat(reason[0]);
    const delay = Math.max(
      failures && Math.min(o.reconnectBaseMs * 1.6 ** (failures - 1), o.reconnectMaxMs) * (0.8 + 0.4 * Math.random()),
      reason[0] == 1013 ? 5000 : 0,
    );
    setState("waiting", reason[1]);
    if (o.socketPerCall) failed++;
    else
      timer = setTimeout(() => {
        try {
          connect();
        } catch {
          setState("idle"); // for the next call, which fails by the error
          changed._fire();
        }
      }, delay);
  }

  return {
    _state: () => state,
    _changed: changed,

    _picker() {
      const before = failed;
      return () => {
        if (current?._isFree()) return current;
        if (failed > before || state == "closed") throw errorOf(lost);
        if (state == "idle") connect();
        return;
      };
    },

    _close() {
      setState("closed");
      lost = [1000, "closed"];
      current?._close(...lost);
      clearTimeout(timer);
      changed._fire();
    },
  };
}
