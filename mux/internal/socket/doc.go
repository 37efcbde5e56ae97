// Package socket serves WebSocket connections (RFC 6455) that can neither be
// made to grow without bound, nor to block for ever, nor to outlive their server.
//
// # Detached
//
// [Server.Upgrade] answers a handshake and returns: the handler runs on a
// goroutine of its own, which is the reader and the only goroutine of an idle
// socket, and net/http's buffers are free again. A handler may give that up as well
// while nothing comes ([Conn.ReadSoon], [Conn.Rest]): of a socket that rests there is
// nothing but a few structs, and one goroutine waits for all of them.
//
// The Server owns every socket it upgraded and ends them in Shutdown and Close, which
// net/http does not do for hijacked connections.
//
// # Reading
//
// gorilla/websocket reads and checks frames. Between it and the network stands
// a [net.Conn] of this package (wire.go) that gives back the bytes which came
// together with the handshake, refuses frames gorilla would let pass (frames.go),
// and takes the close frames gorilla sends by itself. A message is read into a
// pooled buffer that its receiver hands back, so an idle socket holds none; over TCP
// the network too is read into one from a pool, once there is something to read.
//
// [Conn.Copy] reads a stream of bytes instead, without ever holding a message whole.
//
// Someone must keep reading: pings, pongs and the peer's close frame are seen
// by [Conn.Read], [Conn.ReadSoon] and [Conn.Copy] alone.
//
// # Writing
//
// Every frame, control frames included, passes through one queue bounded in
// bytes (queue.go). Whatever has gathered there leaves in one system call, made
// by a goroutine that exists only while there is something to write, or by a writer
// with nothing else to do ([Conn.WriteHere]). Where the handler says that more is
// about to come ([Conn.Gather]), the call waits for the goroutines that are ready to
// run; where it says that nothing is, and yet bytes come without end from one that does
// not pause, it waits a moment, until they are worth a call. A full queue blocks the
// writers of messages; that is the back-pressure of the peer.
//
// # Ending
//
// A socket ends once, and the first reason counts: it is what later Reads and
// Writes return and what [context.Cause] of [Conn.Context] tells. A close frame
// follows everything queued before it; TCP ends when the peer has answered, or
// a second later.
package socket
