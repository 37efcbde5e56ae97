package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/stats"
)

// connections counts those that have begun and those that are open; it tells the numbers
// as JSON.
type connections struct {
	begun, open atomic.Int64
}

func (c *connections) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]int64{"begun": c.begun.Load(), "open": c.open.Load()})
}

func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.begun.Add(1)
		c.open.Add(1)
	case *stats.ConnEnd:
		c.open.Add(-1)
	}
}

func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *connections) HandleRPC(context.Context, stats.RPCStats)                         {}

// chat is a handler as programs have them: it knows HTTP/1.1 only, and says what it sees of
// that.
func chat(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{Subprotocols: []string{"chat"}, EnableCompression: true}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // it has been answered
	}
	defer c.Close()
	if c.WriteMessage(websocket.TextMessage, []byte(r.Proto)) != nil {
		return
	}
	for {
		kind, m, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, m) != nil {
			return
		}
	}
}
