// Package sniff tells what a new connection speaks by looking at its first bytes, so that cmux can hand it to the
// server for it. It replaces the matchers of cmux, which read without bound in bytes and in time.
//
// # The way of a connection
//
// A [Listener] is the root of a cmux. Each connection it accepts is a [Conn]: it has an absolute deadline for reads
// and writes, a budget of bytes, and is closed for good soon after the deadline unless somebody took it. [Match]
// gives cmux the matchers; the first one to run classifies the connection, the others use its verdict. What comes out
// of a child listener has a kind, see [KindOf], and goes through [Handoff], which lifts the limits and gives back a
// connection that replays the bytes looked at and then is the accepted one as nearly as can be, or through [Reject],
// which answers and closes it.
//
//	root := sniff.NewListener(ln, sniff.Config{})
//	m := cmux.New(root)
//	grpcs := m.MatchWithWriters(sniff.Match(sniff.GRPC))
//	webs := m.MatchWithWriters(sniff.Match(sniff.HTTP1, sniff.HTTP2, sniff.Upgrade))
//	rest := m.Match(cmux.Any())
//
// Under TLS the same is done twice: once for the first byte, and again, with a Listener and a cmux of its own, on the
// connections that tls.Server gives.
//
// Do not call SetReadTimeout on that cmux (it would lift the deadline), nor its Close (it leaves new connections
// open and unread), nor Close on a child listener (it is the root's): use [Listener.Drain] and [Listener.Close].
//
// # A verdict is a hint
//
// It comes from the first request of a connection; a later one may be of any kind, and clients that pool connections
// mix them. So every server behind the split must answer every kind, and nothing that matters for security may depend
// on the verdict.
//
// # The early SETTINGS
//
// Many HTTP/2 clients, grpc-go among them, send no request before they have seen the server's SETTINGS, and some not
// before the acknowledgement of their own. So when the first request has not come with the rest, this package writes
// both: the greeting. The server that takes the connection then writes them too, which would be one acknowledgement too
// many on each side: net/http punishes that with PROTOCOL_ERROR. So on the connection given out by Handoff
//
//   - the server's own SETTINGS are left out if they say what those of the greeting said, in whatever order. The client's
//     acknowledgement of the greeting is then the one the server waits for.
//   - Else the server's SETTINGS go to the client, which acknowledges twice, and its first acknowledgement is left out.
//   - The server's first acknowledgement is left out.
//   - The server gets no more than the client's preface and first SETTINGS until it has acknowledged them.
//
// Nothing else is changed. Best is therefore a [Config] whose Settings are those of all the servers behind.
//
// A client that opens with a good preface and then says nothing is not cut: at the end of the time it is [HTTP2], and
// the general server, which answers gRPC as well, keeps it for as long as it likes.
package sniff
