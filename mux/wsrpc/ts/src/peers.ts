// What is imported in one place is in a bundle once: bundlers do not merge imports of other packages.
import { type Code, ConnectError, appendHeaders, createContextValues } from "@connectrpc/connect";
import { createClientMethodSerializers, runStreamingCall, runUnaryCall } from "@connectrpc/connect/protocol";

export { ConnectError, appendHeaders, createClientMethodSerializers, createContextValues, runStreamingCall, runUnaryCall };

/** The codes of Connect that are given here. Unlike that one, this enum leaves but numbers behind. */
export const enum Status {
  Canceled = 1,
  Unknown = 2,
  InvalidArgument = 3,
  PermissionDenied = 7,
  ResourceExhausted = 8,
  Internal = 13,
  Unavailable = 14,
  Unauthenticated = 16,
}

/** Makes the error of a call. */
export const fail = (code: number, text: string, metadata?: Headers) => new ConnectError(text, code as Code, metadata);

/** Makes of anything thrown the error of a call. */
export const asError = (reason: unknown, code: number = Status.Internal) => ConnectError.from(reason, code as Code);
