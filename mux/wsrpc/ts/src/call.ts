// What one call sends and receives (../PROTOCOL.md, sections 3 and 4).
import type { BinaryReadOptions, BinaryWriteOptions, JsonReadOptions, JsonWriteOptions } from "@bufbuild/protobuf";
import type { StreamRequest, StreamResponse, UnaryRequest, UnaryResponse } from "@connectrpc/connect";
import type { Channel } from "./channel.js";
import { type Metadata, type Received, base64Decode, base64Encode, isBinary } from "./frame.js";
import { type ConnectError, Status, appendHeaders, asError, createClientMethodSerializers, fail } from "./peers.js";
import { createSignal } from "./signal.js";
import { type Socket, type SocketOptions, badFrame, messageCost } from "./socket.js";

/** Options of a call, with defaults filled in. */
export interface CallOptions extends SocketOptions {
  useBinaryFormat: boolean;
  /** What ends each call that is not over. */
  _calls: Set<(reason: ConnectError) => void>;
  _metadata(): Promise<Metadata>;
  jsonOptions?: Partial<JsonReadOptions & JsonWriteOptions>;
  binaryOptions?: Partial<BinaryReadOptions & BinaryWriteOptions>;
}

/** One call, as a socket sees it. */
export interface Call {
  /** Does what a frame of the server says of the call. */
  _handle(received: Received): void;
  /** Ends the call, once; with an error unless the server has ended it with OK. */
  _finish(error?: ConnectError): void;
}

/**
 * Makes a call, of any kind.
 *
 * @param path the name of the method, with the slash in front
 * @param deadline when it ends, in ms since 1970; NaN for none
 * @param onOver is called when the call is over
 */
export async function makeCall(
  o: CallOptions,
  channel: Channel,
  req: UnaryRequest | StreamRequest,
  path: string,
  deadline: number,
  onOver: () => void,
): Promise<UnaryResponse | StreamResponse> {
  const { method, signal } = req;
  const { clientStreaming, serverStreaming } = method.proto;
  const { serialize, parse } = createClientMethodSerializers(method, o.useBinaryFormat, o.jsonOptions, o.binaryOptions);
  const { _wait: wait, _fire: fire } = createSignal();
  const trailer = new Headers();
  const queue: Received[] = [];
  let header: Headers | undefined;
  let answered = 0;
  let over = false;
  let error: ConnectError | undefined;
  let socket: Socket | undefined;
  let number = 0;
  let mayReceive = o.windowBytes;
  let maySend = 0;
  let owed = 0;

  function check() {
    if (error) throw error;
  }

  function finish(reason?: ConnectError) {
    if (over) return;
    over = true;
    error = reason;
    o._calls.delete(finish);
    socket?._remove(number);
    onOver();
    fire();
  }

  function handle(received: Received) {
    const [{ credit = 0, header: head, message, end }, , bytes] = received;
    try {
      if (message) answered++;
      // In JSON the server may have more credit than is known here: blanks count for it.
      if ((maySend += credit) >= 2 ** 31 || bytes > o.readMaxBytes || (message && o.useBinaryFormat && mayReceive <= 0)) {
        throw fail(Status.ResourceExhausted, "message too large");
      }
      // A header comes once and first, and one answer where the method has one.
      if ((head && header) || (!serverStreaming && (answered > 1 || (end && !end.code && !answered)))) throw badFrame;
      if (head || message || end) header ??= append(new Headers(), head?.metadata);
      if (message) {
        mayReceive -= bytes + messageCost;
        queue.push(received);
      }
      if (end) {
        const { code, message = "", details = [] } = end;
        append(trailer, end.trailer);
        if (code) {
          throw Object.assign(fail(code > 16 ? Status.Unknown : code, message, appendHeaders(header!, trailer)), {
            details: details.map(({ type = "", value = new Uint8Array() }) => ({ type: type.replace(/.*\//, ""), value })),
          });
        }
        finish();
      }
    } catch (err) {
      finish(asError(err));
    }
    fire();
  }

  // sendAll sends requests until there are no more, or the call is over.
  async function sendAll(requests: AsyncIterable<any>) {
    try {
      for await (const request of requests) {
        const message = serialize(request);
        while (!over && (maySend <= 0 || !socket!._hasRoom())) await (maySend <= 0 ? wait() : channel._changed._wait());
        if (over) return;
        maySend -= message.length + messageCost;
        socket!._send({ call: number, message });
      }
      if (!over) socket!._send({ call: number, halfClose: true });
    } catch (err) {
      finish(asError(err));
    }
  }

  async function* answers() {
    for (;;) {
      const received = queue.shift();
      if (received) {
        const [{ message }, , bytes] = received;
        owed += bytes + messageCost;
        if (!over && 2 * owed >= o.windowBytes) {
          mayReceive += owed;
          socket!._send({ call: number, credit: owed });
          owed = 0;
        }
        try {
          yield parse(message!);
        } catch (err) {
          throw finish((error = fail(Status.Internal, `${err}`))), error;
        }
      } else {
        check();
        if (over) return;
        await wait();
      }
    }
  }

  o._calls.add(finish);
  const abort = () => finish(asError(signal.reason, Status.Canceled));
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort);
  try {
    const request = !req.stream ? req.message : !clientStreaming && (await Promise.race([req.message[Symbol.asyncIterator]().next(), wait()] as const))?.value;
    const message = request ? serialize(request) : undefined;
    let metadata: Metadata | void; // asked for once, when it can first be told
    for (const pick = channel._picker(); !socket; ) {
      check();
      const free = pick();
      if (!free) await channel._changed._wait();
      else {
        metadata ??= await Promise.race([o._metadata(), wait()]);
        if (metadata && !over && free._isFree()) {
          const timeoutMs = Math.max(Math.floor(deadline - Date.now()), 1) || undefined; // NaN
          const open = { method: path, metadata: toMetadata(req.header), timeoutMs };
          [number, maySend] = free._open({ _finish: finish, _handle: handle }, { open, message }, metadata);
          socket = free;
          if (message) maySend -= message.length + messageCost;
        }
      }
    }
    if (!request) void sendAll(req.message as AsyncIterable<any>);
    while (!header) {
      check();
      await wait();
    }
    const all = answers();
    let last: unknown;
    if (!req.stream) for await (last of all);
    return { ...req, header, message: last ?? all, trailer } as never;
  } catch (err) {
    finish((error = asError(err)));
    throw error;
  }
}

function append(headers: Headers, metadata: Metadata = {}) {
  for (const [key, texts] of Object.entries(metadata)) for (const text of texts) headers.append(key, text);
  return headers;
}

/** Returns what headers have as metadata. They join the values of a key by commas, of which base64 has none. */
export const toMetadata = (headers: Headers): Metadata =>
  Object.fromEntries(
    [...headers].map(([key, joined]) => [key, isBinary(key) ? joined.split(",").map((text) => base64Encode(base64Decode(text))) : [joined]]),
  );
