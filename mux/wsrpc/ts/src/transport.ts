// The transport of Connect-ES that makes its calls over grpc-ws.v1.
import type { BinaryReadOptions, BinaryWriteOptions, DescMethodStreaming, DescMethodUnary, JsonReadOptions, JsonWriteOptions } from "@bufbuild/protobuf";
import type { Interceptor, StreamRequest, Transport, UnaryRequest } from "@connectrpc/connect";
import { type CallOptions, makeCall, toMetadata } from "./call.js";
import { type ChannelOptions, type ConnectionState, createChannel } from "./channel.js";
import { binaryFrames, frame, metadata as metadataField } from "./frame.js";
import { Status, asError, createContextValues, fail, runStreamingCall, runUnaryCall } from "./peers.js";
import type { WebSocketLike } from "./socket.js";

/** Options of {@link createGrpcWsTransport}. */
export interface GrpcWsTransportOptions {
  /**
   * Where the server is, such as `https://example.com` or `location.origin`. The socket is at
   * `/grpc-ws` under it, `wss` for `https` and `ws` for `http`.
   */
  baseUrl: string;

  /** Whether frames are protobuf. Default true; JSON is for people who read along. */
  useBinaryFormat?: boolean;

  /** Run around every call, as with other transports. */
  interceptors?: Interceptor[];

  /**
   * Metadata of every call, such as `authorization`; what a call has itself goes before. A
   * function is asked once before each call, when there is a socket for it. What it returns is
   * sent once, and again when it has changed. A call fails with UNAUTHENTICATED where the function
   * throws or rejects, unless by a ConnectError, which it then fails with.
   */
  metadata?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);

  /**
   * Whether each call has a socket of its own. By default all have one, which is kept and made
   * again. If true, the state is "idle" until close.
   */
  socketPerCall?: boolean;

  /** The timeout of calls that have none, in milliseconds. Default none. */
  defaultTimeoutMs?: number;

  /** Options of the JSON of messages. By default unknown fields are ignored. */
  jsonOptions?: Partial<JsonReadOptions & JsonWriteOptions>;

  /** Options of the protobuf of messages. */
  binaryOptions?: Partial<BinaryReadOptions & BinaryWriteOptions>;

  /** What makes sockets. Default the global one, which Node has from version 22 on. */
  WebSocket?: new (url: string, protocols: string) => WebSocketLike;

  /**
   * Called when the shared socket has another state, with the reason where that is not of
   * the caller's making. What it throws goes to the console.
   */
  onStateChange?: (state: ConnectionState, reason?: string) => unknown;

  /** How many bytes of answers may wait for the reader of each call, one answer more apart. Default 65536. */
  windowBytes?: number;

  /** The size of the largest answer. A larger one ends its call with RESOURCE_EXHAUSTED. Default 4 MiB. */
  readMaxBytes?: number;

  /**
   * The server is pinged when in so many milliseconds it has said nothing and taken nothing. If it does
   * neither in as many more, the socket is given up; so it is when the server has not said hello in that
   * time. Default 20000; 0 means never.
   */
  pingIntervalMs?: number;

  /**
   * The time before the second attempt to connect again, in milliseconds. It grows by 1.6 with
   * each that fails, and differs by a fifth either way. Default 1000.
   */
  reconnectBaseMs?: number;

  /** The longest such time, in milliseconds. Default 30000. */
  reconnectMaxMs?: number;
}

// With defaults filled in.
type Options = CallOptions & ChannelOptions & Pick<GrpcWsTransportOptions, "interceptors" | "defaultTimeoutMs">;

/** What {@link createGrpcWsTransport} returns. */
export interface GrpcWsTransport extends Transport {
  /** What the shared socket does. */
  readonly state: ConnectionState;

  /** Ends calls with CANCELED, and their sockets, for good. */
  close(): void;
}

/**
 * Makes a transport for clients of Connect-ES over the WebSocket protocol grpc-ws.v1, with all
 * four kinds of call. It connects when the first call is made.
 *
 * When the socket is lost, its calls fail with UNAVAILABLE, and it is made again. No
 * call is repeated. A call that is made meanwhile waits for the next attempt to connect, and fails
 * when that does. A call ends when all of its answers are read or its signal is aborted; to leave
 * the loop over them is not enough.
 *
 * The error is that of a baseUrl that is no URL, or of a missing WebSocket.
 */
export function createGrpcWsTransport(options: GrpcWsTransportOptions): GrpcWsTransport {
  const { metadata } = options;
  const base = options.baseUrl.replace(/\/*$/, "");
  const o: Options = {
    useBinaryFormat: true,
    windowBytes: 65536,
    readMaxBytes: 4 << 20,
    pingIntervalMs: 20000,
    reconnectBaseMs: 1000,
    reconnectMaxMs: 30000,
    WebSocket: globalThis.WebSocket,
    _calls: new Set(),
    _frames: binaryFrames,
    url: new URL(base + "/grpc-ws").href.replace(/^http/, "ws"),
    async _metadata() {
      try {
        return toMetadata(new Headers(await (typeof metadata == "function" ? metadata() : metadata)));
      } catch (err) {
        throw asError(err, Status.Unauthenticated);
      }
    },
  };
  for (const [name, value] of Object.entries(options)) {
    // Nothing in milliseconds or bytes may be larger.
    if (value !== undefined) (o as any)[name] = value > 2 ** 31 - 1 ? 2 ** 31 - 1 : value;
  }
  if (!o.WebSocket) throw new Error("set the option WebSocket");

  const shared = createChannel(o, options.onStateChange);

  const run =
    (runCall: typeof runUnaryCall | typeof runStreamingCall, stream: boolean) =>
    (
      method: DescMethodUnary | DescMethodStreaming,
      signal: AbortSignal | undefined,
      timeoutMs = o.defaultTimeoutMs,
      header: HeadersInit | undefined,
      message: unknown,
      contextValues = createContextValues(),
    ): Promise<any> => {
      const path = `/${method.parent.typeName}/${method.name}`;
      const ms = timeoutMs! > 0 ? timeoutMs : undefined;
      const deadline = Date.now() + ms!; // NaN without one
      const response = runCall({
        interceptors: o.interceptors,
        signal,
        timeoutMs: ms,
        req: { stream, service: method.parent, method, requestMethod: "POST", url: base + path, header: new Headers(header), contextValues, message },
        async next(req: UnaryRequest | StreamRequest) {
          if (!o.useBinaryFormat) o._frames = (await import("./json.js")).default(frame, metadataField);
          const channel = o.socketPerCall ? createChannel(o) : shared;
          return makeCall(o, channel, req, path, deadline, channel == shared ? channel._changed._fire : channel._close);
        },
      } as never);
      // A client of Connect looks at this only when answers are asked for.
      response.catch(() => {});
      return response;
    };

  return {
    get state() {
      return shared._state();
    },
    close() {
      o.socketPerCall = false; // shared takes no calls any more
      shared._close();
      for (const end of o._calls) end(fail(Status.Canceled, "closed"));
    },
    unary: run(runUnaryCall, false) as Transport["unary"],
    stream: run(runStreamingCall, true) as Transport["stream"],
  };
}
